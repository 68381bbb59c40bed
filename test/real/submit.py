# Submits one message with smtplib: settings in SETTINGS, the message on standard
# input; the server's last reply goes to standard output.
import json, os, smtplib, ssl, sys

o = json.loads(os.environ["SETTINGS"])
trust = ssl.create_default_context(cafile=o["ca"])


class Client(smtplib.SMTP_SSL if o["implicit"] else smtplib.SMTP):
    def getreply(self):
        self.last = super().getreply()
        return self.last


def last(code, text):
    print(code, text.decode(errors="replace").replace("\n", " "))


client = Client(o["host"], o["port"], local_hostname="client.example", timeout=30, **({"context": trust} if o["implicit"] else {}))
try:
    if not o["implicit"]:
        client.starttls(context=trust)
    client.login(o["user"], o["key"])
    client.ehlo_or_helo_if_needed()
    client.sendmail(o["from"], o["to"], sys.stdin.buffer.read(), mail_options=["BODY=8BITMIME"] if o["eightBit"] else [])
    last(*client.last)
    client.quit()
except smtplib.SMTPRecipientsRefused as err:
    last(*next(iter(err.recipients.values())))
    sys.exit(1)
except smtplib.SMTPResponseException as err:
    last(err.smtp_code, err.smtp_error)
    sys.exit(1)

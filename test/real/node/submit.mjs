// Submits one message with nodemailer: settings in SETTINGS, the message on
// standard input; the server's last reply goes to standard output.
import { readFileSync } from 'node:fs';
import { createTransport } from 'nodemailer';

const o = JSON.parse(process.env.SETTINGS);
const transport = createTransport({
  host: o.host, port: o.port, secure: o.implicit, requireTLS: !o.implicit, name: 'client.example',
  auth: { user: o.user, pass: o.key }, tls: { ca: readFileSync(o.ca) },
});
try {
  const { response } = await transport.sendMail({ envelope: { from: o.from, to: o.to, use8BitMime: o.eightBit }, raw: readFileSync(0) });
  console.log(response);
} catch (err) {
  console.log(err.response ?? err.message);
  process.exitCode = 1;
}

package sim

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// The replies of Exchange's submission front end. {host} is the front end with
// the moment and a number, {HOST} its name alone, {from} and the like are
// filled in.
const (
	replyBanner       = "220 {HOST} Microsoft ESMTP MAIL Service ready at {date} [{serial}]"
	replyBadName      = "501 5.5.4 Invalid domain name [{host}]"
	replyReadyTLS     = "220 2.0.0 SMTP server ready"
	replyAuthOK       = "235 2.7.0 Authentication successful"
	replyAuthFailed   = "535 5.7.3 Authentication unsuccessful [{host}]"
	replyAuthAbort    = "501 5.7.0 Authentication aborted"
	replyAuthBase64   = "501 5.5.2 Cannot decode response"
	replyNoMechanism  = "504 5.7.4 Unrecognized authentication type [{host}]"
	replyTenantOff    = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information. [{host}]"
	replyMailboxOff   = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information. [{host}]"
	replyDefaults     = "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy. Contact your administrator. [{host}]"
	reply5139Criteria = "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully. Contact your administrator. [{host}]"
	replyBadPassword  = "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect. [{host}]"
	replyBasicOff     = "535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [{host}]"
	replyBasicRetired = "550 5.7.30 Basic authentication is not supported for Client Submission."
	replyNotAuthed    = "530 5.7.57 Client not authenticated to send mail. [{host}]"
	replySenderOK     = "250 2.1.0 Sender OK"
	replyRecipientOK  = "250 2.1.5 Recipient OK"
	replyStartMail    = "354 Start mail input; end with <CRLF>.<CRLF>"
	replyQueued       = "250 2.0.0 OK {id} [Hostname={HOST}]"
	replyReset        = "250 2.0.0 Resetting"
	replyNoop         = "250 2.0.0 OK"
	replyBye          = "221 2.0.0 Service closing transmission channel"
	replyUnknown      = "500 5.3.3 Unrecognized command '{verb}' [{host}]"
	replySequence     = "503 5.5.1 Bad sequence of commands [{host}]"
	replyArguments    = "501 5.5.4 Invalid arguments [{host}]"
	replyBadAddress   = "501 5.1.7 Invalid address [{host}]"
	replyBadRecipient = "501 5.1.3 Invalid address [{host}]"
	replyLineLong     = "500 5.5.6 Line too long [{host}]"
	replyTooMany      = "452 4.5.3 Too many recipients [{host}]"
	replyTooBig       = "552 5.3.4 Message size exceeds fixed maximum message size [{host}]"
	replyHeaderBig    = "552 5.3.4 Header size exceeds fixed maximum size [{host}]"
	replyOversize     = "{code} STOREDRV.Submission.Exception:MessageSubmissionExceededException.MapiExceptionMaxSubmissionExceeded; Failed to process message due to a permanent exception with message [BeginDiagnosticData]Cannot submit message. 16.55847:{serial}, MapiExceptionMaxSubmissionExceeded; Message size exceeds maximum size limit.[EndDiagnosticData] [Hostname={HOST}]"
	replyBareLF       = "550 5.6.11 Invalid characters in the message: bare line feed or carriage return [{host}]"
	replyNoFrom       = "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant and include a valid From address. [{host}]"
	replySendAs       = "554 5.2.252 SendAsDenied; {auth} not allowed to send as {from}; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message due to a permanent exception with message [BeginDiagnosticData]Cannot submit message. 0.35250:{serial}, 1.36674:0A000000, 16.55847:{serial}[EndDiagnosticData] [Hostname={HOST}]"
	reply432          = "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information. [Hostname={HOST}]"
	replyThreads      = "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded [Hostname={HOST}]"
	replyQuotaDay     = "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message due to a permanent exception with message The message can't be submitted because the sender's submission quota was exceeded. [Hostname={HOST}]"
	replyMailboxFull  = "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded; Failed to process message due to a permanent exception with message Cannot submit message. [Hostname={HOST}]"
	replyTERRL        = "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for sending email to external recipients (tenant external recipient rate limit or TERRL). [{host}]"
	replyTERRLTrial   = "550 5.7.232 Your message can't be sent because your trial tenant exceeded its daily limit for sending email to external recipients (tenant external recipient rate limit). [{host}]"
	replyThrottled    = "550 5.2.25{n} Sender throttled due to continuous {what} errors."
	replyUnknownUser  = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient {to} not found by SMTP address lookup [{host}]"
	replyTempFail     = "451 4.7.0 Temporary server error. Please try again later. PRX4 [Hostname={HOST}]"
	replyTooManyBad   = "421 4.7.0 Too many errors on this connection, closing transmission channel [{host}]"
	replyShutdown     = "421 4.3.2 Service not available, closing transmission channel [{host}]"
	replyIdle         = "421 4.4.1 Connection timed out [{host}]"
	replyVerify       = "252 2.1.5 Cannot VRFY user"
	replyHelp         = "214 2.0.0 This server supports the following commands: HELO EHLO STARTTLS RCPT DATA RSET MAIL QUIT HELP AUTH BDAT"
)

// reply fills a text in. Args are pairs of word and value.
func (x *exchange) reply(text string, args ...string) string {
	if text == "{10000 lines}" {
		return strings.Repeat("250-"+strings.Repeat("x", 70)+"\r\n", 9999) + "250 OK"
	}
	now := x.sim.Now().UTC()
	host := x.sim.world.now.Load().Knobs.HostName
	serial := strings.ToUpper(hex.EncodeToString(randomBytes(8)))
	args = append(args, "{host}", fmt.Sprintf("%s %s %s", host, now.Format("2006-01-02T15:04:05.000Z"), serial),
		"{HOST}", host, "{serial}", serial, "{date}", now.Format(time.RFC1123Z))
	return strings.NewReplacer(args...).Replace(text)
}

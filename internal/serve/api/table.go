package api

import (
	"net/http"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

// An endpoint is one method at one address.
type endpoint struct {
	method, path string
	id           string // operationId of the OpenAPI document
	text         string // what it does, in a line
	scopes       []mailgrant.Scope
	public       bool // no key is needed
	operator     bool // the operator only
	orgless      bool // an operator need not name an organization
	query        []param
	in, out      any // types of the wire; nil: nothing
	status       int
	kinds        []string // other types that the body may have
	also         []string // other types that the answer may have
	headers      []param  // of the request
	do           func(*call) error
}

// The rights that routes ask for; one of each list is enough.
var (
	reads   = []mailgrant.Scope{mailgrant.ScopeRead}
	sends   = []mailgrant.Scope{mailgrant.ScopeSend}
	sees    = []mailgrant.Scope{mailgrant.ScopeSend, mailgrant.ScopeRead} // its own, or all
	manages = []mailgrant.Scope{mailgrant.ScopeManage}
	tokens  = []mailgrant.Scope{mailgrant.ScopeToken}
	gets    = []mailgrant.Scope{mailgrant.ScopeReceive, mailgrant.ScopeRead} // of its mailboxes, or all
)

var pages = []param{
	{name: "cursor", kind: "string", text: "Where the page begins: next of the page before."},
	{name: "limit", kind: "integer", text: "How many there are on a page, 500 at most."},
}

func with(list []param, more ...param) []param { return append(more, list...) }

var classNames = []string{string(mailgrant.ClassUser), string(mailgrant.ClassSystem)}

var envelope = []param{
	{name: "from", kind: "string", text: "Envelope sender of a message/rfc822; default the address in its From field."},
	{name: "to", kind: "string", many: true, text: "Envelope recipient of a message/rfc822, again for more; default those of To, Cc and Bcc."},
	{name: "class", kind: "string", text: "What the message is for; default user.", of: classNames},
	{name: "on_behalf_of", kind: "string", text: "The person it is sent for."},
	{name: "mailbox", kind: "string", text: "Id or address of the mailbox to send through; default: the route chooses."},
	{name: "send_at", kind: "date-time", text: "When to send it; default now."},
}

var eventQuery = []param{
	{name: "after", kind: "string", text: "The seq of the last event seen, or now to begin with the next one."},
	{name: "cursor", kind: "string", text: "Next of the page before."},
	{name: "limit", kind: "integer", text: "How many there are on a page, 500 at most."},
	{name: "kind", kind: "string", many: true, text: "Only of this kind, or of a sort as arrival.*; again for more. docs/webhooks.md lists all."},
	{name: "subject", kind: "string", text: "Only about the thing with this id."},
	{name: "app", kind: "string", text: "Only of the app with this id."},
	{name: "mailbox", kind: "string", text: "Only of the mailbox with this id."},
}

var arrivalNames = []string{"new", "delivered", "acknowledged", "ignored", "quarantined"}

const octetType = "application/octet-stream"

var stateNames = []string{"ready", "sending", "uncertain", "delivered", "failed", "cancelled"}

// table is every route there is.
func table() []endpoint {
	const get, post, patch, del = http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete
	return []endpoint{
		{method: post, path: "/v1/submissions", id: "createSubmission", scopes: sends, text: "Hand over a message: in fields, or as its bytes",
			in: client.Message{}, out: mailgrant.Submission{}, status: 202, kinds: []string{messageType}, query: envelope,
			headers: []param{{name: "Idempotency-Key", kind: "string", text: "Makes the request repeatable: the same key twice is the same submission, for seven days."}},
			do:      (*call).createSubmission},
		{method: get, path: "/v1/submissions", id: "listSubmissions", scopes: sees, text: "List submissions, newest first: the app's own, with the right read all",
			out: client.Page[mailgrant.Submission]{}, status: 200, do: (*call).listSubmissions, query: with(pages,
				param{name: "app", kind: "string", text: "Only of the app with this id."},
				param{name: "mailbox", kind: "string", text: "Only of the mailbox with this id or address."},
				param{name: "state", kind: "string", many: true, of: stateNames, text: "Only in this state; again for more."},
				param{name: "since", kind: "date-time", text: "Only those accepted since."})},
		{method: get, path: "/v1/submissions/{submission}", id: "getSubmission", scopes: sees, text: "Show a submission",
			out: mailgrant.Submission{}, status: 200, do: (*call).getSubmission},
		{method: get, path: "/v1/submissions/{submission}/attempts", id: "listAttempts", scopes: sees, text: "List the tries to hand a submission over, oldest first",
			out: client.Page[mailgrant.Attempt]{}, status: 200, query: pages, do: (*call).listAttempts},
		{method: get, path: "/v1/submissions/{submission}/raw", id: "getRaw", scopes: sees, text: "Give the bytes of a message as they leave",
			status: 200, also: []string{messageType}, do: (*call).getRaw},
		{method: post, path: "/v1/submissions/{submission}/cancel", id: "cancelSubmission", scopes: sees, text: "Cancel a submission that is not being sent: the app's own, with the right manage any",
			out: mailgrant.Submission{}, status: 200, do: (*call).cancelSubmission},
		{method: post, path: "/v1/submissions/{submission}/retry", id: "retrySubmission", scopes: sees, text: "Make a submission due now: the app's own, with the right manage any",
			out: mailgrant.Submission{}, status: 200, do: (*call).retrySubmission},
		{method: get, path: "/v1/queue", id: "getQueue", scopes: reads, text: "Say what waits, by mailbox",
			out: client.Page[client.Waiting]{}, status: 200, query: pages, do: (*call).getQueue},
		{method: get, path: "/v1/route", id: "explainRoute", scopes: sees, text: "Say which mailbox would carry a message, and why",
			out: mailgrant.Route{}, status: 200, do: (*call).explainRoute, query: []param{
				{name: "from", kind: "string", must: true, text: "Address in the From field."},
				{name: "class", kind: "string", of: classNames, text: "What the message is for; default user."},
				{name: "on_behalf_of", kind: "string", text: "The person it is sent for."},
				{name: "mailbox", kind: "string", text: "Id or address of the mailbox to send through."}}},
		{method: get, path: "/v1/events", id: "listEvents", scopes: gets, text: "List events, oldest first; as text/event-stream go on with new ones; with the right receive those of arrivals only",
			out: client.Page[mailgrant.Event]{}, status: 200, also: []string{eventType}, query: eventQuery, do: (*call).getEvents,
			headers: []param{{name: "Last-Event-ID", kind: "string", text: "Of a stream that goes on: the seq of the last event seen."}}},

		{method: get, path: "/v1/arrivals", id: "listArrivals", scopes: gets, text: "List received mail, newest first: of the app's mailboxes, with the right read all",
			out: client.Page[mailgrant.Arrival]{}, status: 200, do: (*call).listArrivals, query: with(pages,
				param{name: "mailbox", kind: "string", text: "Only of the mailbox with this id or address."},
				param{name: "state", kind: "string", many: true, of: arrivalNames, text: "Only in this state; again for more."},
				param{name: "since", kind: "date-time", text: "Only what was noticed since."},
				param{name: "q", kind: "string", text: "Words that all stand in the addresses, the subject or the Message-ID."},
				param{name: "order", kind: "string", of: []string{"newest", "oldest"}, text: "Which come first; default newest."})},
		{method: get, path: "/v1/arrivals/{arrival}", id: "getArrival", scopes: gets, text: "Show a received message with its text",
			out: client.FullArrival{}, status: 200, do: (*call).getArrival},
		{method: get, path: "/v1/arrivals/{arrival}/raw", id: "getArrivalRaw", scopes: gets, text: "Give the bytes of a received message",
			status: 200, also: []string{messageType}, do: (*call).getArrivalRaw},
		{method: get, path: "/v1/arrivals/{arrival}/attachments/{attachment}", id: "getAttachment", scopes: gets, text: "Give an attachment of a received message by its number, decoded",
			status: 200, also: []string{octetType}, do: (*call).getAttachment},
		{method: post, path: "/v1/arrivals/{arrival}/acknowledge", id: "acknowledgeArrival", scopes: gets, text: "Say that the app is done with a received message",
			out: mailgrant.Arrival{}, status: 200, do: (*call).acknowledgeArrival},
		{method: post, path: "/v1/arrivals/{arrival}/ignore", id: "ignoreArrival", scopes: gets, text: "Say that a received message is not wanted",
			out: mailgrant.Arrival{}, status: 200, do: (*call).ignoreArrival},
		{method: post, path: "/v1/arrivals/{arrival}/read-again", id: "readArrivalAgain", scopes: gets, text: "Have a message read once more that its provider did not give",
			status: 204, do: (*call).readArrivalAgain},
		{method: post, path: "/v1/mailboxes/{mailbox}/move", id: "moveMailbox", scopes: manages, text: "Have a mailbox read by another protocol without taking a message twice; or look what that would do, or take it back within a week",
			in: client.MoveOrder{}, out: mailgrant.Move{}, status: 200, do: (*call).moveMailbox},
		{method: get, path: "/v1/mailboxes/{mailbox}/reader", id: "getReader", scopes: gets, text: "Say how the reading of a mailbox goes",
			out: mailgrant.ReaderStatus{}, status: 200, do: (*call).getReader},

		{method: get, path: "/v1/grants", id: "listGrants", scopes: reads, text: "List the grants",
			out: client.Page[client.Grant]{}, status: 200, query: pages, do: (*call).listGrants},
		{method: post, path: "/v1/grants", id: "createGrant", scopes: manages, text: "Make a grant, pending until somebody consents",
			in: client.GrantSettings{}, out: client.Grant{}, status: 201, do: (*call).createGrant},
		{method: get, path: "/v1/grants/{grant}", id: "getGrant", scopes: reads, text: "Show a grant",
			out: client.Grant{}, status: 200, do: (*call).getGrant},
		{method: patch, path: "/v1/grants/{grant}", id: "updateGrant", scopes: manages, text: "Change a grant",
			in: client.GrantSettings{}, out: client.Grant{}, status: 200, do: (*call).updateGrant},
		{method: del, path: "/v1/grants/{grant}", id: "deleteGrant", scopes: manages, text: "Delete a grant that no mailbox uses",
			status: 204, do: (*call).deleteGrant},
		{method: get, path: "/v1/grants/{grant}/token", id: "getToken", scopes: tokens, text: "Give an access token that is good for at least a minute, to an app that lists a mailbox of the grant",
			out: client.Token{}, status: 200, do: (*call).getToken,
			query: []param{{name: "resource", kind: "string", text: "What the token is for, such as outlook or graph; default the grant's first."}}},
		{method: post, path: "/v1/grants/{grant}/links", id: "createLink", scopes: manages, text: "Make an address that lets its holder begin one consent",
			in: client.NewLink{}, out: client.Link{}, status: 201, do: (*call).createLink},
		{method: get, path: "/v1/links", id: "listLinks", scopes: reads, text: "List the addresses for consents that still work, without themselves",
			out: client.Page[client.Link]{}, status: 200, query: pages, do: (*call).listLinks},
		{method: del, path: "/v1/links/{link}", id: "deleteLink", scopes: manages, text: "Take back an address for a consent: it works no more",
			status: 204, do: (*call).deleteLink},
		{method: post, path: "/v1/grants/{grant}/activate", id: "activateGrant", scopes: manages, text: "Make a grant of the app itself active: nobody signs in",
			out: client.Grant{}, status: 200, do: (*call).activate},
		{method: post, path: "/v1/grants/{grant}/device", id: "beginDevice", scopes: manages, text: "Begin a device code, where the operator allows it",
			out: client.DeviceCode{}, status: 201, do: (*call).beginDevice},
		{method: get, path: "/v1/grants/{grant}/device/{flow}", id: "pollDevice", scopes: manages, text: "Ask whether the person with the device code is through",
			out: client.DeviceState{}, status: 200, do: (*call).pollDevice},
		{method: post, path: "/v1/grants/{grant}/admin-consent", id: "checkAdminConsent", scopes: manages, text: "Look again whether an administrator has approved",
			out: client.AdminConsent{}, status: 200, do: (*call).checkAdminConsent},
		{method: post, path: "/v1/grants/{grant}/renew", id: "renewGrant", scopes: manages, text: "Refresh a grant now",
			out: client.Grant{}, status: 200, do: (*call).renewGrant},
		{method: post, path: "/v1/grants/{grant}/revoke", id: "revokeGrant", scopes: manages, text: "Disconnect a grant: its refresh token is destroyed",
			out: client.Grant{}, status: 200, do: (*call).revokeGrant},

		{method: get, path: "/v1/mailboxes", id: "listMailboxes", scopes: reads, text: "List the mailboxes",
			out: client.Page[mailgrant.Mailbox]{}, status: 200, query: pages, do: (*call).listMailboxes},
		{method: post, path: "/v1/mailboxes", id: "createMailbox", scopes: manages, text: "Make a mailbox",
			in: client.MailboxSettings{}, out: mailgrant.Mailbox{}, status: 201, do: (*call).createMailbox},
		{method: get, path: "/v1/mailboxes/{mailbox}", id: "getMailbox", scopes: reads, text: "Show a mailbox, by id or address",
			out: mailgrant.Mailbox{}, status: 200, do: (*call).getMailbox},
		{method: patch, path: "/v1/mailboxes/{mailbox}", id: "updateMailbox", scopes: manages, text: "Change a mailbox",
			in: client.MailboxSettings{}, out: mailgrant.Mailbox{}, status: 200, do: (*call).updateMailbox},
		{method: del, path: "/v1/mailboxes/{mailbox}", id: "deleteMailbox", scopes: manages, text: "Delete a mailbox that has nothing left to send",
			status: 204, do: (*call).deleteMailbox},
		{method: post, path: "/v1/mailboxes/{mailbox}/resume", id: "resumeMailbox", scopes: manages, text: "End a hold: the next message shows whether the mailbox works",
			status: 204, do: (*call).resumeMailbox},
		{method: post, path: "/v1/mailboxes/{mailbox}/check", id: "checkMailbox", scopes: manages, text: "Test a mailbox from its settings to a message to itself; as lines, each step as it ends",
			out: mailgrant.CheckReport{}, status: 200, also: []string{ndjsonType}, do: (*call).checkMailboxNow,
			query: []param{{name: "send", kind: "boolean", text: "false: send no message."}}},

		{method: get, path: "/v1/apps", id: "listApps", scopes: reads, text: "List the apps",
			out: client.Page[mailgrant.App]{}, status: 200, query: pages, do: (*call).listApps},
		{method: post, path: "/v1/apps", id: "createApp", scopes: manages, text: "Make an app",
			in: client.AppSettings{}, out: mailgrant.App{}, status: 201, do: (*call).createApp},
		{method: get, path: "/v1/apps/{app}", id: "getApp", scopes: reads, text: "Show an app, by id or name",
			out: mailgrant.App{}, status: 200, do: (*call).getApp},
		{method: patch, path: "/v1/apps/{app}", id: "updateApp", scopes: manages, text: "Change an app",
			in: client.AppSettings{}, out: mailgrant.App{}, status: 200, do: (*call).updateApp},
		{method: del, path: "/v1/apps/{app}", id: "deleteApp", scopes: manages, text: "Delete an app and its keys",
			status: 204, do: (*call).deleteApp},
		{method: get, path: "/v1/apps/{app}/keys", id: "listKeys", scopes: reads, text: "List the keys of an app, revoked ones too, without their secrets",
			out: client.Page[mailgrant.Key]{}, status: 200, query: pages, do: (*call).listKeys},
		{method: post, path: "/v1/apps/{app}/keys", id: "issueKey", scopes: manages, text: "Issue a key; its secret is shown this once",
			in: client.NewKey{}, out: client.IssuedKey{}, status: 201, do: (*call).issueKey},
		{method: del, path: "/v1/apps/{app}/keys/{key}", id: "revokeKey", scopes: manages, text: "Revoke a key",
			status: 204, do: (*call).revokeKey},

		{method: get, path: "/v1/webhooks", id: "listWebhooks", scopes: reads, text: "List the webhooks",
			out: client.Page[mailgrant.Webhook]{}, status: 200, query: pages, do: (*call).listWebhooks},
		{method: post, path: "/v1/webhooks", id: "createWebhook", scopes: manages, text: "Make a webhook; its secret is shown this once",
			in: client.WebhookSettings{}, out: client.SignedWebhook{}, status: 201, do: (*call).createWebhook},
		{method: get, path: "/v1/webhooks/{webhook}", id: "getWebhook", scopes: reads, text: "Show a webhook, by id or name, and how much waits for it",
			out: mailgrant.Webhook{}, status: 200, do: (*call).getWebhook},
		{method: patch, path: "/v1/webhooks/{webhook}", id: "updateWebhook", scopes: manages, text: "Change a webhook, or switch it off and on",
			in: client.WebhookSettings{}, out: mailgrant.Webhook{}, status: 200, do: (*call).updateWebhook},
		{method: del, path: "/v1/webhooks/{webhook}", id: "deleteWebhook", scopes: manages, text: "Delete a webhook and all that waits for it",
			status: 204, do: (*call).deleteWebhook},
		{method: post, path: "/v1/webhooks/{webhook}/rotate", id: "rotateWebhook", scopes: manages, text: "Give a webhook a new secret, shown this once; for a time both sign",
			in: client.Rotation{}, out: client.SignedWebhook{}, status: 200, do: (*call).rotateWebhook},
		{method: post, path: "/v1/webhooks/{webhook}/test", id: "testWebhook", scopes: manages, text: "Post a test to a webhook, and say what came of it",
			out: mailgrant.Delivery{}, status: 200, do: (*call).testWebhook},
		{method: get, path: "/v1/webhooks/{webhook}/deliveries", id: "listDeliveries", scopes: reads, text: "List the last tries to tell a webhook, newest first, for three days and a thousand at most",
			out: client.Page[mailgrant.Delivery]{}, status: 200, do: (*call).listDeliveries, query: with(pages,
				param{name: "dead", kind: "boolean", text: "true: what was given up, by mailbox and in order."})},
		{method: post, path: "/v1/webhooks/{webhook}/replay", id: "replayWebhook", scopes: manages, text: "Tell a webhook once more of a span of events, of one delivery, or of all that was given up",
			in: client.Replay{}, out: client.Replayed{}, status: 202, do: (*call).replayWebhook},

		{method: get, path: "/v1/templates", id: "listTemplates", text: "List the providers that are known", orgless: true,
			out: client.Page[client.Template]{}, status: 200, do: (*call).listTemplates},
		{method: get, path: "/v1/discover", id: "discover", scopes: []mailgrant.Scope{mailgrant.ScopeRead, mailgrant.ScopeManage}, orgless: true, text: "Say who keeps the mail of an address",
			out: client.Discovery{}, status: 200, do: (*call).discover, query: []param{{name: "address", kind: "string", must: true, text: "The address."}}},
		{method: get, path: "/v1/registrations", id: "listRegistrations", scopes: reads, text: "List the registrations",
			out: client.Page[client.Registration]{}, status: 200, query: pages, do: (*call).listRegistrations},
		{method: post, path: "/v1/registrations", id: "createRegistration", scopes: manages, text: "Make a registration; it may be half filled in",
			in: client.RegistrationSettings{}, out: client.Registration{}, status: 201, do: (*call).createRegistration},
		{method: get, path: "/v1/registrations/{registration}", id: "getRegistration", scopes: reads, text: "Show a registration",
			out: client.Registration{}, status: 200, do: (*call).getRegistration},
		{method: patch, path: "/v1/registrations/{registration}", id: "updateRegistration", scopes: manages, text: "Change a registration; its grants may have to be authorised again",
			in: client.RegistrationSettings{}, out: client.Registration{}, status: 200, do: (*call).updateRegistration},
		{method: del, path: "/v1/registrations/{registration}", id: "deleteRegistration", scopes: manages, text: "Delete a registration that no grant uses",
			status: 204, do: (*call).deleteRegistration},
		{method: post, path: "/v1/registrations/{registration}/credentials", id: "addCredential", scopes: manages, text: "Give a registration one more way to prove itself; the secret is never shown again",
			in: client.NewCredential{}, out: mailgrant.Credential{}, status: 201, do: (*call).addCredential},
		{method: del, path: "/v1/registrations/{registration}/credentials/{credential}", id: "deleteCredential", scopes: manages, text: "Delete a credential",
			status: 204, do: (*call).deleteCredential},

		{method: get, path: "/v1/organizations", id: "listOrganizations", scopes: reads, orgless: true, text: "List the organizations that the caller may see",
			out: client.Page[mailgrant.Organization]{}, status: 200, query: pages, do: (*call).listOrganizations},
		{method: post, path: "/v1/organizations", id: "createOrganization", operator: true, orgless: true, text: "Make an organization",
			in: client.OrganizationSettings{}, out: mailgrant.Organization{}, status: 201, do: (*call).createOrganization},
		{method: get, path: "/v1/organizations/{organization}", id: "getOrganization", scopes: reads, orgless: true, text: "Show an organization",
			out: mailgrant.Organization{}, status: 200, do: (*call).getOrganization},
		{method: patch, path: "/v1/organizations/{organization}", id: "updateOrganization", scopes: manages, orgless: true, text: "Change an organization",
			in: client.OrganizationSettings{}, out: mailgrant.Organization{}, status: 200, do: (*call).updateOrganization},
		{method: del, path: "/v1/organizations/{organization}", id: "deleteOrganization", operator: true, orgless: true, text: "Delete an empty organization",
			status: 204, do: (*call).deleteOrganization},

		{method: post, path: "/v1/explain", id: "explain", orgless: true, text: "Say what a text of a mail server or provider means; as lines, many of them",
			in: client.Failure{}, out: mailgrant.Finding{}, status: 200, kinds: []string{ndjsonType}, also: []string{ndjsonType}, do: (*call).explain},
		{method: get, path: "/v1/causes", id: "listCauses", orgless: true, text: "List the causes of failures that are known, and what mailgrant itself refuses",
			out: client.Page[client.Cause]{}, status: 200, do: (*call).listCauses, query: []param{{name: "search", kind: "string", text: "Only those that a word belongs to."}}},
		{method: get, path: "/v1/causes/{cause}", id: "getCause", orgless: true, text: "Show a cause of failures, or a refusal: the last part of the type of a problem",
			out: client.Cause{}, status: 200, do: (*call).getCause},
		{method: get, path: "/v1/health", id: "getHealth", public: true, orgless: true, text: "Say how the installation does: without the right read only whether it does",
			out: client.Health{}, status: 200, do: (*call).getHealth},
		{method: get, path: "/v1/keyset", id: "getKeyset", operator: true, orgless: true, text: "Say which keys seal, and how much the old ones still seal",
			out: client.KeyStatus{}, status: 200, do: (*call).getKeyset},
		{method: post, path: "/v1/keyset/rotate", id: "rotateKeyset", operator: true, orgless: true, text: "Add a sealing key and seal everything anew while mailgrant runs",
			out: client.KeyStatus{}, status: 200, do: (*call).rotateKeyset},
		{method: post, path: "/v1/backup", id: "backup", operator: true, orgless: true, text: "Write everything as it stands now, sealed with the master key",
			status: 200, also: []string{"application/octet-stream"}, do: (*call).backup},
		{method: get, path: "/v1/openapi.yaml", id: "getOpenAPI", public: true, orgless: true, text: "Give this document",
			status: 200, also: []string{"application/yaml"}, do: (*call).getOpenAPI},
		{method: get, path: "/v1/openapi.json", id: "getOpenAPIJSON", public: true, orgless: true, text: "Give this document as JSON",
			status: 200, also: []string{jsonType}, do: (*call).getOpenAPIJSON},
	}
}

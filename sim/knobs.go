package sim

import (
	"fmt"
	"reflect"
	"time"
)

// Knobs are the limits, lifetimes and manners of the imitation. A zero number
// takes the default of DefaultKnobs; -1 switches a limit off.
type Knobs struct {
	// Entra
	CodeLife       Duration `json:"code_life,omitempty"`        // authorization code
	AccessTokenMin Duration `json:"access_token_min,omitempty"` // lifetimes are random between these
	AccessTokenMax Duration `json:"access_token_max,omitempty"`
	CAETokenLife   Duration `json:"cae_token_life,omitempty"` // for clients that declare cp1
	RefreshIdle    Duration `json:"refresh_idle,omitempty"`   // unused for so long, a refresh token dies
	SPARefreshLife Duration `json:"spa_refresh_life,omitempty"`
	DeviceLife     Duration `json:"device_life,omitempty"`
	DeviceInterval Duration `json:"device_interval,omitempty"`
	SessionLife    Duration `json:"session_life,omitempty"` // cookie of a browser

	RotateStrict       bool `json:"rotate_strict,omitempty"`         // an old refresh token revokes its family
	OmitRefreshToken   bool `json:"omit_refresh_token,omitempty"`    // renewals bring no new refresh token
	OmitExpiresIn      bool `json:"omit_expires_in,omitempty"`       // answers without expires_in
	RefuseManyScopes   bool `json:"refuse_many_scopes,omitempty"`    // 700022 at refresh too, not the first resource
	RefuseHintOnSelect bool `json:"refuse_hint_on_select,omitempty"` // login_hint with prompt=select_account
	SlowDown           bool `json:"slow_down,omitempty"`             // device polls that come too early hear it
	NoStaySignedIn     bool `json:"no_stay_signed_in,omitempty"`     // skip the page
	AnnounceBrowserURL bool `json:"announce_browser_url,omitempty"`  // authorization_endpoint on plain http
	ResponseIssuer     bool `json:"response_issuer,omitempty"`       // RFC 9207 iss, which Entra lacks
	LogoutIssuer       bool `json:"logout_issuer,omitempty"`         // iss beside sid at front-channel logout

	// TamperIDToken spoils id tokens on purpose: iss, aud, sub, nonce, exp,
	// sig, alg-none, alg-hs256, tid, kid, oid.
	TamperIDToken string `json:"tamper_id_token,omitempty"`

	// Exchange
	HostName          string   `json:"host_name,omitempty"` // of the SMTP front end
	Size              int64    `json:"size,omitempty"`      // advertised
	MaxSendSize       int64    `json:"max_send_size,omitempty"`
	MaxHeaderSize     int64    `json:"max_header_size,omitempty"`
	Connections       int      `json:"connections,omitempty"` // of one mailbox at a time
	PerMinute         int      `json:"per_minute,omitempty"`  // messages of one mailbox, then delayed
	RecipientsPerDay  int      `json:"recipients_per_day,omitempty"`
	RecipientsPerMail int      `json:"recipients_per_mail,omitempty"`
	TenantExternal    int      `json:"tenant_external,omitempty"` // recipients a day; 0 = by licences
	AuthFailures      int      `json:"auth_failures,omitempty"`   // then the connection ends
	ProtocolErrors    int      `json:"protocol_errors,omitempty"`
	PenaltyAfter      int      `json:"penalty_after,omitempty"` // refusals, then 5.2.251 to 5.2.255; 0 = never
	IdleTimeout       Duration `json:"idle_timeout,omitempty"`
	StrictCase        bool     `json:"strict_case,omitempty"`    // refuse "xoauth2"
	FailChallenge     bool     `json:"fail_challenge,omitempty"` // Google's 334 with JSON before 535
	OAuthBearer       bool     `json:"oauth_bearer,omitempty"`   // offer OAUTHBEARER, as others do
	AllowBareLF       bool     `json:"allow_bare_lf,omitempty"`  // a lax server
	OversizeReply     string   `json:"oversize_reply,omitempty"` // the code of an oversized body
	AddReceived       bool     `json:"add_received,omitempty"`   // put a Received field on top
	StripBcc          bool     `json:"strip_bcc,omitempty"`      // out of mail sent by SMTP
	PlaintextAuth     bool     `json:"plaintext_auth,omitempty"` // AUTH before STARTTLS

	// IMAP and POP. Taking a word out of what IMAP offers makes the service
	// refuse it. EndAtExpiry ends a session with its token.
	IMAPPreAuth      string   `json:"imap_pre_auth,omitempty"`   // capabilities before the login
	IMAPCapability   string   `json:"imap_capability,omitempty"` // and after it
	IMAPLine         int      `json:"imap_line,omitempty"`       // bytes of a command without its literals
	IMAPConnections  int      `json:"imap_connections,omitempty"`
	IMAPTimeout      Duration `json:"imap_timeout,omitempty"`
	IMAPLoginTimeout Duration `json:"imap_login_timeout,omitempty"`
	IMAPNoSpecialUse bool     `json:"imap_no_special_use,omitempty"` // LIST without \Sent and the like
	IMAPAuthFailed   string   `json:"imap_auth_failed,omitempty"`    // behind NO
	EndAtExpiry      bool     `json:"end_at_expiry,omitempty"`
	POPCapability    []string `json:"pop_capability,omitempty"`
	POPConnections   int      `json:"pop_connections,omitempty"`
	POPTimeout       Duration `json:"pop_timeout,omitempty"`
	POPOneLine       bool     `json:"pop_one_line,omitempty"` // take AUTH XOAUTH2 with the token in the same line

	// Graph
	GraphBody        int64    `json:"graph_body,omitempty"`        // request cap in bytes
	GraphConcurrency int      `json:"graph_concurrency,omitempty"` // per app and mailbox
	GraphRequests    int      `json:"graph_requests,omitempty"`    // per app and mailbox in 10 minutes
	GraphUpload      int64    `json:"graph_upload,omitempty"`      // bytes per app and mailbox in 5 minutes
	GraphRetryAfter  Duration `json:"graph_retry_after,omitempty"`
	UploadSlice      int64    `json:"upload_slice,omitempty"`
	UploadMin        int64    `json:"upload_min,omitempty"` // a smaller file may have no session
	UploadMax        int64    `json:"upload_max,omitempty"`
	UploadLife       Duration `json:"upload_life,omitempty"`

	// Graph, reading
	GraphDeltaPage        int      `json:"graph_delta_page,omitempty"`         // the most that a page has
	GraphDeltaOldestFirst bool     `json:"graph_delta_oldest_first,omitempty"` // of the first round
	GraphSubscriptions    int      `json:"graph_subscriptions,omitempty"`      // of a mailbox, over all apps
	GraphSubscriptionMax  Duration `json:"graph_subscription_max,omitempty"`   // lifetime
	GraphSubscriptionMin  Duration `json:"graph_subscription_min,omitempty"`   // a shorter one is raised to it
	GraphValidation       Duration `json:"graph_validation,omitempty"`         // to answer a validation in
	GraphNotifyTimeout    Duration `json:"graph_notify_timeout,omitempty"`     // to answer a notification in
	GraphNotifyRetry      Duration `json:"graph_notify_retry,omitempty"`       // then it comes again after this, and later
	GraphNotifyGiveUp     Duration `json:"graph_notify_give_up,omitempty"`

	// SlowBy is how long the +slow addresses and "slow" faults wait.
	SlowBy Duration `json:"slow_by,omitempty"`

	// KeepMail bounds the messages held; the oldest go first. 0 keeps all.
	KeepMail int `json:"keep_mail,omitempty"`
}

// DefaultKnobs are the figures of the real service, as far as they are known.
func DefaultKnobs() Knobs {
	return Knobs{
		CodeLife:       Duration(10 * time.Minute),
		AccessTokenMin: Duration(3599 * time.Second),
		AccessTokenMax: Duration(5399 * time.Second),
		CAETokenLife:   Duration(24 * time.Hour),
		RefreshIdle:    Duration(90 * 24 * time.Hour),
		SPARefreshLife: Duration(24 * time.Hour),
		DeviceLife:     Duration(900 * time.Second),
		DeviceInterval: Duration(5 * time.Second),
		SessionLife:    Duration(24 * time.Hour),

		HostName:          "SY5P282CA0097.outlook.office365.com",
		Size:              157286400,
		MaxSendSize:       35 << 20,
		MaxHeaderSize:     256 << 10,
		Connections:       3,
		PerMinute:         30,
		RecipientsPerDay:  10000,
		RecipientsPerMail: 500,
		AuthFailures:      3,
		ProtocolErrors:    10,
		IdleTimeout:       Duration(5 * time.Minute),
		OversizeReply:     "552 5.3.4",

		IMAPPreAuth: "IMAP4 IMAP4rev1 AUTH=XOAUTH2 LOGINDISABLED SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+",
		IMAPCapability: "IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CLIENTACCESSRULES " +
			"CLIENTNETWORKPRESENCELOCATION BACKENDAUTHENTICATE CHILDREN IDLE NAMESPACE LITERAL+",
		IMAPLine:         10240,
		IMAPConnections:  16,
		IMAPTimeout:      Duration(30 * time.Minute),
		IMAPLoginTimeout: Duration(time.Minute),
		IMAPAuthFailed:   "AUTHENTICATE failed.",
		POPCapability:    []string{"TOP", "UIDL", "SASL PLAIN XOAUTH2", "USER"},
		POPConnections:   16,
		POPTimeout:       Duration(30 * time.Minute),

		GraphBody:        4 << 20,
		GraphConcurrency: 4,
		GraphRequests:    10000,
		GraphUpload:      150 << 20,
		GraphRetryAfter:  Duration(10 * time.Second),
		UploadSlice:      4 << 20,
		UploadMin:        2 << 20,
		UploadMax:        150 << 20,
		UploadLife:       Duration(24 * time.Hour),

		GraphDeltaPage:       1000,
		GraphSubscriptions:   1000,
		GraphSubscriptionMax: Duration(10080 * time.Minute),
		GraphSubscriptionMin: Duration(45 * time.Minute),
		GraphValidation:      Duration(10 * time.Second),
		GraphNotifyTimeout:   Duration(3 * time.Second),
		GraphNotifyRetry:     Duration(10 * time.Second),
		GraphNotifyGiveUp:    Duration(4 * time.Hour),

		SlowBy: Duration(10 * time.Second),
	}
}

// fill puts the default in the place of every zero number and empty text.
func (k *Knobs) fill() {
	have := reflect.ValueOf(k).Elem()
	usual := reflect.ValueOf(DefaultKnobs())
	for i := range have.NumField() {
		if f := have.Field(i); f.IsZero() && f.Kind() != reflect.Bool {
			f.Set(usual.Field(i))
		}
	}
}

// over says whether n is beyond limit, where a negative limit is none.
func over[N int | int64](n, limit N) bool { return limit >= 0 && n > limit }

// A Duration is a time.Duration written as text, such as "90m".
type Duration time.Duration

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes d as "1h30m0s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("duration %q: write it as 90s, 10m or 2h", text)
	}
	*d = Duration(v)
	return nil
}

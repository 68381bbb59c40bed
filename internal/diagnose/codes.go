package diagnose

// A mark is what a code means, and how much that is worth against other signs.
type mark struct {
	cause string
	rank  int
}

// entra maps AADSTS numbers. A question mark leaves the answer to the facts.
var entra = map[int]string{
	// The request we made.
	50011: "redirect-uri-mismatch", 500112: "redirect-uri-mismatch", 500113: "redirect-uri-mismatch",
	500117: "redirect-uri-mismatch", 50102: "redirect-uri-mismatch", 900971: "redirect-uri-mismatch", 70020: "code-expired-or-used",
	50001: "scope-invalid", 500011: "scope-invalid", 50027: "endpoint-misconfigured", 50059: "endpoint-misconfigured",
	50117: "redirect-uri-mismatch", 50146: "endpoint-misconfigured", 50147: "code-expired-or-used", 501481: "endpoint-misconfigured", 501491: "endpoint-misconfigured",
	50148: "endpoint-misconfigured", 50149: "endpoint-misconfigured", 501461: "endpoint-misconfigured", 50161: "endpoint-misconfigured",
	50194: "endpoint-misconfigured", 50196: "throttled-app", 500014: "app-disabled",
	65005: "scope-invalid", 65006: "scope-invalid", 650057: "scope-invalid", 650051: "scope-invalid", 650052: "scope-invalid", 650053: "scope-invalid", 650054: "scope-invalid", 650056: "?misconfigured-app",
	70003: "endpoint-misconfigured", 70004: "redirect-uri-mismatch", 70005: "client-type-mismatch", 700054: "client-type-mismatch", 70006: "endpoint-misconfigured", 70007: "endpoint-misconfigured",
	70009: "provider-outage", 70011: "?scope", 700022: "mixed-resource-scopes", 28002: "scope-invalid", 28003: "scope-invalid",
	70014: "endpoint-misconfigured", 700005: "endpoint-misconfigured", 1002012: "scope-invalid", 1002016: "tls-failure",
	90002: "tenant-not-found", 90009: "scope-invalid", 900023: "tenant-not-found", 90005: "endpoint-misconfigured", 90006: "provider-outage",
	90010: "account-not-allowed-for-app", 90013: "endpoint-misconfigured", 90014: "?parameter", 90015: "endpoint-misconfigured", 90016: "endpoint-misconfigured", 90019: "endpoint-misconfigured",
	90020: "provider-outage", 90022: "endpoint-misconfigured", 90023: "?invalid-request", 90027: "endpoint-misconfigured", 90036: "provider-outage", 90038: "tenant-not-found",
	900144: "?parameter", 900382: "tenant-not-found", 900383: "tenant-not-found", 900432: "client-type-mismatch", 900439: "tenant-not-found", 900561: "endpoint-misconfigured",
	9000401: "endpoint-misconfigured", 900491: "app-not-in-tenant", 9000410: "endpoint-misconfigured", 9001023: "endpoint-misconfigured", 9002312: "endpoint-misconfigured", 9002313: "endpoint-misconfigured",
	9002325: "client-type-mismatch", 9002326: "client-type-mismatch", 9002327: "client-type-mismatch", 9002332: "account-not-allowed-for-app", 9002346: "account-not-allowed-for-app", 900480: "endpoint-misconfigured",
	9002339: "account-not-allowed-for-app", 9002341: "user-consent-required", 9002342: "endpoint-misconfigured", 9002344: "endpoint-misconfigured", 9002331: "account-not-allowed-for-app", 900951: "scope-invalid",
	16002: "user-consent-required", 16000: "account-not-allowed-for-app", 16003: "account-not-allowed-for-app", 160021: "user-consent-required", 17003: "certificate-mismatch", 20001: "provider-outage", 20012: "endpoint-misconfigured", 20033: "endpoint-misconfigured",
	40008: "provider-outage", 40009: "provider-outage", 40010: "provider-outage", 40015: "provider-outage", 240001: "conditional-access-blocked", 240002: "endpoint-misconfigured",

	7000229: "app-not-in-tenant", 501051: "account-not-allowed-for-app", 135010: "conditional-access-blocked", 135011: "conditional-access-blocked", 9000411: "endpoint-misconfigured",
	75003: "endpoint-misconfigured", 75005: "endpoint-misconfigured", 75008: "endpoint-misconfigured", 75011: "endpoint-misconfigured", 50169: "endpoint-misconfigured", 50186: "grant-revoked", 165900: "endpoint-misconfigured",
	1000031: "app-disabled", 120000: "basic-credentials-wrong", 130500: "mfa-required", 50029: "tenant-not-found", 50048: "certificate-mismatch", 50050: "endpoint-misconfigured", 50052: "basic-credentials-wrong", 50099: "conditional-access-blocked", 100007: "endpoint-misconfigured",

	// Our credential.
	70002: "?entra-credential", 50012: "?assertion", 50013: "?assertion", 50027001: "endpoint-misconfigured", 500133: "clock-skew",
	700021: "certificate-mismatch", 7000212: "certificate-mismatch", 7000213: "certificate-mismatch", 7000214: "certificate-mismatch", 700023: "endpoint-misconfigured", 700024: "clock-skew", 700025: "client-type-mismatch", 700027: "?assertion", 700030: "certificate-mismatch",
	7000215: "?secret", 7000216: "client-type-mismatch", 7000217: "client-type-mismatch", 7000218: "client-type-mismatch", 7000219: "certificate-mismatch", 7000222: "client-secret-expired",
	7000112: "app-disabled", 7000113: "app-not-in-tenant", 7000114: "app-disabled", 7000116: "app-disabled", 70021: "certificate-mismatch", 700211: "certificate-mismatch", 700212: "certificate-mismatch", 700213: "certificate-mismatch", 700222: "endpoint-misconfigured", 700223: "certificate-mismatch", 700226: "endpoint-misconfigured", 700231: "certificate-mismatch", 700232: "certificate-mismatch", 700236: "certificate-mismatch",

	// The app in its directory.
	70001: "?app", 700016: "app-not-in-tenant", 700011: "app-not-in-tenant", 90099: "admin-consent-required", 50014: "provider-outage", 70015: "app-disabled", 700029: "app-disabled", 7000020: "app-disabled", 500341: "user-not-found", 500342: "user-not-found",
	50020: "account-not-allowed-for-app", 50105: "account-not-allowed-for-app", 90072: "account-not-allowed-for-app", 50177: "account-not-allowed-for-app", 500208: "account-not-allowed-for-app", 500201: "account-not-allowed-for-app", 500202: "account-not-allowed-for-app", 500207: "account-not-allowed-for-app", 500200: "account-not-allowed-for-app", 500206: "account-not-allowed-for-app", 500209: "account-not-allowed-for-app", 500212: "account-not-allowed-for-app", 500213: "account-not-allowed-for-app", 51000: "scope-invalid", 51001: "endpoint-misconfigured", 50178: "account-not-allowed-for-app", 700051: "client-type-mismatch", 700056: "client-type-mismatch", 700009: "client-type-mismatch",
	500571: "user-disabled", 5000611: "endpoint-misconfigured", 50107: "account-not-allowed-for-app", 500011001: "scope-invalid", 90100: "endpoint-misconfigured", 90123: "endpoint-misconfigured", 90124: "endpoint-misconfigured", 90125: "redirect-uri-mismatch", 90126: "user-not-found", 90130: "account-not-allowed-for-app", 90133: "endpoint-misconfigured", 901002: "endpoint-misconfigured", 900384: "endpoint-misconfigured",

	// Consent.
	65001: "?consent", 65002: "admin-consent-required", 65004: "user-consent-required", 650021: "user-consent-required", 90008: "?consent", 90093: "admin-consent-required", 90094: "admin-consent-required", 900941: "admin-consent-required", 90095: "admin-consent-required", 90096: "admin-consent-required", 900971001: "admin-consent-required", 90097: "admin-consent-required", 900981: "admin-consent-required", 650001: "?consent", 70010: "admin-consent-required", 50207: "admin-consent-required",

	// The person and the grant.
	50034: "user-not-found", 51004: "user-not-found", 50003: "certificate-mismatch", 50008: "endpoint-misconfigured", 50053: "?locked", 50055: "password-changed", 50056: "basic-credentials-wrong", 50057: "user-disabled", 50058: "grant-revoked", 50126: "?password", 500121: "mfa-required", 50064: "basic-credentials-wrong", 50065: "basic-credentials-wrong", 50129: "conditional-access-blocked",
	50072: "mfa-required", 50074: "mfa-required", 50076: "mfa-required", 50079: "mfa-required", 50078: "mfa-required", 50089: "grant-revoked", 50132: "password-changed", 50133: "password-changed", 50134: "account-not-allowed-for-app", 50135: "password-changed", 50139: "grant-revoked", 50140: "mfa-required", 50143: "endpoint-misconfigured", 50144: "password-changed", 50158: "mfa-required", 501581: "mfa-required", 50125: "mfa-required", 50127: "conditional-access-blocked", 50170: "conditional-access-blocked", 50173: "password-changed", 50199: "mfa-required", 501291: "conditional-access-blocked", 50203: "mfa-required", 50206: "user-consent-required", 50228: "mfa-required",
	50085: "?refresh", 50086: "app-not-in-tenant", 50087: "grant-revoked", 54000: "conditional-access-blocked", 54005: "code-expired-or-used", 54008: "mfa-required", 54009: "endpoint-misconfigured", 50068: "endpoint-misconfigured", 50017: "certificate-mismatch", 50131: "conditional-access-blocked", 50155: "conditional-access-blocked", 50187: "conditional-access-blocked", 50193: "conditional-access-blocked", 501314: "conditional-access-blocked", 501313: "conditional-access-blocked",
	70000: "?refresh", 700001: "grant-revoked", 700003: "conditional-access-blocked", 700007: "grant-revoked", 70008: "?expired", 700081: "grant-expired-inactivity", 700082: "grant-expired-inactivity", 700084: "?spa", 70043: "sign-in-frequency", 70044: "sign-in-frequency", 70046: "sign-in-frequency", 70016: "authorization-pending", 70018: "code-expired-or-used", 70019: "code-expired-or-used", 70049: "conditional-access-blocked", 70001001: "app-disabled", 70045: "sign-in-frequency",
	53000: "conditional-access-blocked", 530001: "conditional-access-blocked", 530002: "conditional-access-blocked", 530003: "?device", 530004: "?device", 53001: "?device", 53002: "conditional-access-blocked", 53003: "?conditional", 530031: "conditional-access-blocked", 530032: "conditional-access-blocked", 530034: "conditional-access-blocked", 530035: "conditional-access-blocked", 530036: "?conditional", 53004: "conditional-access-blocked", 53005: "conditional-access-blocked", 53006: "conditional-access-blocked", 53008: "conditional-access-blocked", 53009: "conditional-access-blocked", 53010: "mfa-required", 53011: "conditional-access-blocked", 530084: "conditional-access-blocked", 53200: "conditional-access-blocked", 530041: "conditional-access-blocked", 50005: "?device", 50097: "?device", 501171: "conditional-access-blocked", 220501: "certificate-mismatch", 399284: "endpoint-misconfigured", 52004: "user-consent-required",

	// Their troubles.
	50000: "provider-outage", 50033: "provider-outage", 500021: "conditional-access-blocked", 500022: "conditional-access-blocked", 500023: "conditional-access-blocked", 70012: "provider-outage", 90001: "provider-outage", 90004: "endpoint-misconfigured", 90007: "endpoint-misconfigured", 90012: "provider-outage", 90024: "provider-outage", 90025: "provider-outage", 90033: "provider-outage", 90043: "provider-outage", 90051: "endpoint-misconfigured", 90055: "throttled-app", 90056: "code-expired-or-used", 90080: "provider-outage", 90081: "endpoint-misconfigured", 90082: "endpoint-misconfigured", 90084: "provider-outage", 90085: "provider-outage", 90086: "provider-outage", 90087: "provider-outage", 90090: "provider-outage", 90091: "provider-outage", 90092: "provider-outage", 90101: "user-not-found", 90102: "redirect-uri-mismatch", 90106: "provider-outage", 90107: "endpoint-misconfigured", 90112: "endpoint-misconfigured", 90114: "endpoint-misconfigured", 90117: "endpoint-misconfigured", 90119: "code-expired-or-used", 90120: "endpoint-misconfigured", 90121: "endpoint-misconfigured", 5000811: "clock-skew", 50049: "endpoint-misconfigured", 50192: "endpoint-misconfigured", 900011: "tenant-not-found", 50061: "endpoint-misconfigured", 50000811: "certificate-mismatch", 50006: "certificate-mismatch", 50002: "conditional-access-blocked", 50007: "endpoint-misconfigured", 50010: "oidc-issuer-or-audience-mismatch", 50128: "tenant-not-found",
}

// entraRank puts wrappers, which only introduce a second code, below the rest.
func entraRank(n int) int {
	switch n {
	case 70002, 50012, 50013, 70000, 90023, 9002313:
		return 6
	}
	return 8
}

// enhancedCodes maps enhanced status codes. Exchange's own numbers are exact;
// those of RFC 3463 are general and give way to words.
var enhancedCodes = map[string]mark{
	"5.7.139": {"?auth", 3}, "5.7.3": {"?auth", 3}, "5.7.8": {"?auth", 3}, "5.7.57": {"smtp-auth-not-attempted", 6}, "5.7.30": {"basic-auth-retired", 8},
	"4.7.57": {"smtp-auth-not-attempted", 6}, "5.5.1": {"endpoint-misconfigured", 1}, "5.7.144": {"scope-missing", 4}, "5.7.9": {"app-password-required", 3}, "5.7.14": {"app-password-required", 5},
	"5.7.60": {"send-as-denied", 6}, "5.2.252": {"send-as-denied", 6}, "5.2.251": {"mailbox-full", 5}, "5.2.253": {"mailbox-not-licensed", 5}, "5.2.254": {"daily-recipient-limit", 5}, "5.2.255": {"recipient-rejected", 5},
	"5.1.90": {"daily-recipient-limit", 8}, "5.1.92": {"daily-recipient-limit", 6}, "5.4.5": {"daily-recipient-limit", 4}, "5.1.8": {"spam-blocked-sender", 4}, "5.7.501": {"spam-blocked-sender", 8}, "5.7.502": {"spam-blocked-sender", 8}, "5.7.503": {"spam-blocked-sender", 8}, "5.7.508": {"ip-reputation-blocked", 5},
	"5.7.705": {"throttled-app", 8}, "5.7.708": {"ip-reputation-blocked", 8}, "5.7.750": {"sender-domain-unauthenticated", 8}, "5.7.606": {"ip-reputation-blocked", 5}, "5.7.511": {"ip-reputation-blocked", 8}, "5.7.514": {"ip-reputation-blocked", 5}, "5.7.512": {"message-invalid", 5}, "5.7.513": {"recipient-rejected", 5},
	"5.7.509": {"sender-domain-unauthenticated", 8}, "5.7.23": {"sender-domain-unauthenticated", 4}, "5.7.26": {"sender-domain-unauthenticated", 4}, "4.7.26": {"sender-domain-unauthenticated", 4}, "4.7.23": {"sender-domain-unauthenticated", 4}, "5.7.20": {"sender-domain-unauthenticated", 4}, "5.7.21": {"sender-domain-unauthenticated", 4}, "5.7.22": {"sender-domain-unauthenticated", 4}, "5.7.24": {"sender-domain-unauthenticated", 4}, "5.7.27": {"sender-domain-unauthenticated", 4}, "4.7.27": {"sender-domain-unauthenticated", 4}, "5.7.29": {"sender-domain-unauthenticated", 4}, "4.7.29": {"sender-domain-unauthenticated", 4}, "4.7.32": {"sender-domain-unauthenticated", 4}, "5.7.25": {"ip-reputation-blocked", 4}, "4.7.25": {"ip-reputation-blocked", 4}, "5.7.515": {"sender-domain-unauthenticated", 8}, "5.7.510": {"message-invalid", 3},
	"5.7.28": {"throttled-app", 3}, "4.7.28": {"throttled-app", 3}, "4.7.12": {"password-changed", 3}, "4.7.0": {"?temporary", 2}, "5.7.11": {"tls-failure", 4}, "5.7.10": {"tls-failure", 4}, "5.7.4": {"?mechanism", 4},
	"5.1.0": {"recipient-rejected", 2}, "5.1.1": {"recipient-rejected", 4}, "5.1.2": {"recipient-domain-unreachable", 3}, "5.1.3": {"recipient-rejected", 3}, "5.1.4": {"recipient-rejected", 3}, "5.1.5": {"recipient-rejected", 3}, "5.1.6": {"recipient-rejected", 4}, "5.1.7": {"message-invalid", 3}, "5.1.9": {"recipient-rejected", 2}, "5.1.10": {"recipient-rejected", 5}, "5.1.20": {"message-invalid", 4}, "5.1.351": {"recipient-domain-unreachable", 3}, "4.1.1": {"recipient-rejected", 2}, "4.1.2": {"recipient-domain-unreachable", 3}, "4.1.8": {"sender-domain-unauthenticated", 2}, "4.1.7": {"message-invalid", 2},
	"5.2.0": {"recipient-rejected", 1}, "5.2.1": {"recipient-rejected", 3}, "5.2.2": {"mailbox-full", 4}, "4.2.2": {"mailbox-full", 4}, "4.2.1": {"throttled-mailbox", 2}, "5.2.3": {"message-too-large", 4}, "5.2.4": {"recipient-rejected", 2}, "5.2.121": {"throttled-mailbox", 5}, "5.2.122": {"throttled-mailbox", 5}, "5.2.14": {"recipient-rejected", 3}, "4.2.0": {"provider-outage", 1},
	"5.3.4": {"message-too-large", 4}, "5.3.0": {"provider-outage", 1}, "4.3.0": {"provider-outage", 2}, "4.3.1": {"provider-outage", 3}, "5.3.1": {"mailbox-full", 2}, "4.3.2": {"provider-outage", 2}, "5.3.2": {"provider-outage", 2}, "5.3.190": {"recipient-rejected", 4}, "4.3.5": {"provider-outage", 2}, "5.3.5": {"provider-outage", 1},
	"4.4.0": {"recipient-domain-unreachable", 2}, "4.4.1": {"recipient-domain-unreachable", 3}, "4.4.2": {"connection-closed-idle", 2}, "4.4.3": {"recipient-domain-unreachable", 3}, "4.4.4": {"recipient-domain-unreachable", 3}, "4.4.7": {"recipient-domain-unreachable", 3}, "5.4.7": {"recipient-domain-unreachable", 3}, "5.4.0": {"recipient-domain-unreachable", 2}, "5.4.1": {"recipient-rejected", 4}, "5.4.2": {"recipient-domain-unreachable", 3}, "5.4.3": {"recipient-domain-unreachable", 3}, "5.4.4": {"recipient-domain-unreachable", 3}, "5.4.6": {"recipient-domain-unreachable", 1}, "4.4.6": {"recipient-domain-unreachable", 2}, "5.4.14": {"recipient-domain-unreachable", 3}, "4.4.22": {"provider-outage", 4}, "5.4.300": {"recipient-domain-unreachable", 4}, "4.4.316": {"recipient-domain-unreachable", 4}, "4.4.312": {"recipient-domain-unreachable", 4}, "5.4.310": {"recipient-domain-unreachable", 4}, "5.4.312": {"recipient-domain-unreachable", 4}, "5.4.316": {"recipient-domain-unreachable", 4}, "5.4.317": {"recipient-domain-unreachable", 4}, "4.4.317": {"recipient-domain-unreachable", 4}, "4.4.8": {"recipient-domain-unreachable", 3}, "5.4.8": {"recipient-domain-unreachable", 3}, "5.4.11": {"recipient-domain-unreachable", 3}, "5.4.12": {"recipient-domain-unreachable", 3},
	"4.5.3": {"daily-recipient-limit", 3}, "5.5.3": {"message-invalid", 3}, "5.5.2": {"endpoint-misconfigured", 1}, "5.5.4": {"endpoint-misconfigured", 2}, "5.5.127": {"access-token-expired", 6}, "5.6.0": {"message-invalid", 3}, "5.6.1": {"message-invalid", 3}, "5.6.2": {"message-invalid", 3}, "5.6.3": {"message-invalid", 3}, "5.6.7": {"message-invalid", 3}, "5.6.11": {"message-invalid", 5}, "5.5.6": {"message-invalid", 2},
	"5.7.0": {"message-invalid", 1}, "5.7.1": {"?policy", 2}, "4.7.1": {"?policy", 2}, "5.7.2": {"recipient-rejected", 2}, "5.7.5": {"message-invalid", 1}, "5.7.12": {"recipient-rejected", 4}, "5.7.13": {"user-disabled", 2}, "5.7.64": {"smtp-auth-not-attempted", 4}, "5.7.124": {"recipient-rejected", 5}, "5.7.133": {"recipient-rejected", 5}, "5.7.134": {"recipient-rejected", 5}, "5.7.135": {"recipient-rejected", 5}, "5.7.136": {"recipient-rejected", 5}, "5.7.129": {"recipient-rejected", 5}, "5.7.51": {"recipient-rejected", 4}, "5.7.506": {"endpoint-misconfigured", 3}, "5.7.504": {"recipient-rejected", 4}, "5.7.505": {"recipient-rejected", 4}, "5.7.507": {"recipient-rejected", 4}, "5.7.700": {"spam-blocked-sender", 5}, "5.7.703": {"message-invalid", 5}, "5.7.7": {"message-invalid", 2}, "5.7.6": {"message-invalid", 1}, "5.7.232": {"daily-recipient-limit", 8}, "5.7.233": {"daily-recipient-limit", 8}, "5.7.236": {"spam-blocked-sender", 5}, "5.7.68": {"smtp-auth-not-attempted", 4}, "5.7.367": {"spam-blocked-sender", 3}, "5.7.193": {"recipient-rejected", 5}, "5.7.320": {"message-invalid", 3}, "5.7.323": {"tls-certificate-untrusted", 4}, "4.7.321": {"tls-certificate-untrusted", 3}, "4.7.322": {"tls-certificate-untrusted", 3}, "4.7.323": {"tls-certificate-untrusted", 3}, "4.7.324": {"recipient-domain-unreachable", 3}, "4.7.325": {"tls-certificate-untrusted", 3}, "4.7.5": {"tls-certificate-untrusted", 3},
}

// codeRanges are enhanced codes that stand for a whole row of numbers.
var codeRanges = []struct {
	prefix   string
	from, to int
	mark     mark
}{
	{"4.7.", 500, 699, mark{"ip-reputation-blocked", 8}},
	{"4.7.", 850, 899, mark{"ip-reputation-blocked", 4}},
	{"5.7.", 606, 649, mark{"ip-reputation-blocked", 8}},
	{"5.7.", 700, 749, mark{"spam-blocked-sender", 4}},
	{"4.4.", 300, 399, mark{"recipient-domain-unreachable", 3}},
	{"5.4.", 300, 399, mark{"recipient-domain-unreachable", 3}},
}

// replies maps SMTP replies, for want of anything better.
var replies = map[int]mark{
	421: {"?421", 1}, 432: {"?temporary", 1}, 450: {"?temporary", 1}, 451: {"?temporary", 1}, 452: {"?452", 1}, 454: {"?temporary", 1},
	501: {"endpoint-misconfigured", 0}, 503: {"endpoint-misconfigured", 0}, 504: {"?mechanism", 1}, 530: {"smtp-auth-not-attempted", 2},
	534: {"app-password-required", 2}, 535: {"?auth", 2}, 538: {"tls-failure", 1}, 550: {"?policy", 1}, 551: {"recipient-rejected", 1},
	552: {"?552", 2}, 553: {"?553", 1}, 554: {"?policy", 1}, 555: {"message-invalid", 2}, 571: {"?policy", 1}, 521: {"recipient-rejected", 1}, 556: {"recipient-rejected", 1},
}

package sim

import "time"

// What the built-in world is made of. The identifiers never change, so that
// configurations may name them.
const (
	ContosoTenantID  = "6a1d3c52-0f4e-4b8a-9c27-5e8b1f0d2a11"
	FabrikamTenantID = "b7e4f9a0-3d1c-4e65-8f72-1c9a6d5b4e22"

	// A web application that people sign in to.
	ContosoClientID     = "3f8c2b71-64d5-4a09-b1e3-7d2f9c0a5b01"
	ContosoClientSecret = "contoso~web~not-a-real-secret"

	// ContosoOddSecret is a second secret of the same application, with the
	// characters that clients forget to encode.
	ContosoOddSecret = "odd:+%/&= secret~é"

	// An application without people, with a secret.
	ContosoSystemClientID     = "8d0e5a94-2b7f-4c16-a3d8-0f6b4e1c7a02"
	ContosoSystemClientSecret = "contoso~system~not-a-real-secret"

	// An application without people that has a certificate, once
	// Sim.IssueCertificate made one.
	ContosoCertificateClientID = "c25b7f03-9e18-4d6a-8b40-6a3d1f5e9c03"

	// A public client: device code and native redirect.
	ContosoDeviceClientID = "e94a1d68-5c3b-47f2-9d05-2b8e7f6c1a04"

	// A web application of Fabrikam that only Fabrikam's people can use.
	FabrikamClientID     = "0b6d9e37-1f2a-48c4-b5e6-9a7c3d8f2e05"
	FabrikamClientSecret = "fabrikam~web~not-a-real-secret"

	// ContosoPassword is the password of every built-in user.
	ContosoPassword = "Imitation-2026!"
)

// Contoso is the built-in world: contoso.example with an administrator, three
// people and three shared or system mailboxes, fabrikam.example for what
// happens in the wrong tenant, and personal accounts at outlook.example.
func Contoso() *World {
	w, err := NewWorld(State{Tenants: []*Tenant{contoso(), fabrikam(), consumers()}})
	if err != nil {
		panic(err) // the constants above are wrong
	}
	return w
}

func contoso() *Tenant {
	on, off := false, true // of "SMTP AUTH disabled"
	system := "4c7b0e8d-a5f1-4923-8e6c-d1b2a3f40502"
	withCert := "91f3d6a2-7c0b-4e58-b4a9-e8c7d6b50603"
	return &Tenant{
		ID: ContosoTenantID, Name: "Contoso",
		Domains:  []string{"contoso.example", "contoso.onmicrosoft.example"},
		Licences: 25,
		Users: []*User{
			{ID: "a0f1c2d3-0001-4a5b-8c6d-7e8f90a1b2c3", Address: "admin@contoso.example", Name: "Ada Admin",
				Password: ContosoPassword, MFA: true, Roles: []string{RoleGlobalAdmin}},
			{ID: "a0f1c2d3-0002-4a5b-8c6d-7e8f90a1b2c3", Address: "alex@contoso.example", Name: "Alex Wilber",
				Password: ContosoPassword, MFA: true, Aliases: []string{"alex.wilber@contoso.example"}},
			{ID: "a0f1c2d3-0003-4a5b-8c6d-7e8f90a1b2c3", Address: "kim@contoso.example", Name: "Kim Akers",
				Password: ContosoPassword},
			{ID: "a0f1c2d3-0004-4a5b-8c6d-7e8f90a1b2c3", Address: "sam@contoso.example", Name: "Sam Smith",
				Password: ContosoPassword},
			{ID: "a0f1c2d3-0005-4a5b-8c6d-7e8f90a1b2c3", Address: "scanner@contoso.example", Name: "Scanner, 2nd floor",
				Password: ContosoPassword},
		},
		Mailboxes: []*Mailbox{
			{Address: "admin@contoso.example", Name: "Ada Admin"},
			{Address: "alex@contoso.example", Name: "Alex Wilber", Aliases: []string{"alex.wilber@contoso.example"}, SMTPAuthDisabled: &on},
			{Address: "kim@contoso.example", Name: "Kim Akers"},
			{Address: "sam@contoso.example", Name: "Sam Smith"},
			{Address: "office@contoso.example", Name: "Contoso Office", Shared: true,
				SendAs:     []string{"alex@contoso.example", "kim@contoso.example"},
				FullAccess: []string{"alex@contoso.example", "kim@contoso.example"}},
			{Address: "noreply@contoso.example", Name: "Contoso Notices", Shared: true},
			{Address: "scanner@contoso.example", Name: "Scanner, 2nd floor", SMTPAuthDisabled: &off},
		},
		Apps: []*App{
			{ID: ContosoClientID, Name: "Contoso Mail", Accounts: AudienceOrganizations, AnyLoopback: true,
				Redirect: []Redirect{
					{URI: "https://mail.contoso.example/oauth/callback"},
					{URI: "https://spa.contoso.example/", Platform: PlatformSPA},
				},
				Secrets: []Secret{
					{ID: "5e0b1c7a-1111-4f3d-9a2b-8c6d4e5f0a11", Value: ContosoClientSecret,
						Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)},
					{ID: "5e0b1c7a-2222-4f3d-9a2b-8c6d4e5f0a12", Value: ContosoOddSecret,
						Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)},
				},
				Delegated: []string{"User.Read", "openid", "profile", "email", "offline_access",
					"https://outlook.office.com/SMTP.Send", "https://outlook.office.com/IMAP.AccessAsUser.All",
					"https://outlook.office.com/POP.AccessAsUser.All",
					"Mail.Send", "Mail.Send.Shared", "Mail.ReadWrite"}},
			{ID: ContosoSystemClientID, Name: "Contoso Notices", AnyLoopback: true,
				Secrets: []Secret{{ID: "5e0b1c7a-3333-4f3d-9a2b-8c6d4e5f0a13", Value: ContosoSystemClientSecret,
					Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}},
				Application: appPermissions},
			{ID: ContosoCertificateClientID, Name: "Contoso Batch", AnyLoopback: true, Application: appPermissions},
			{ID: ContosoDeviceClientID, Name: "Contoso Command Line", Public: true, Accounts: AudienceOrganizations,
				Redirect:  []Redirect{{URI: "http://localhost", Platform: PlatformNative}},
				Delegated: []string{"User.Read", "https://outlook.office.com/SMTP.Send", "Mail.Send"}},
		},
		Enterprise: []*Enterprise{
			{App: ContosoSystemClientID, ObjectID: system},
			{App: ContosoCertificateClientID, ObjectID: withCert},
		},
		Principals: []*Principal{
			{App: ContosoSystemClientID, ObjectID: system,
				FullAccess: []string{"noreply@contoso.example", "scanner@contoso.example"}},
			{App: ContosoCertificateClientID, ObjectID: withCert,
				FullAccess: []string{"noreply@contoso.example"}, SendAs: []string{"office@contoso.example"}},
		},
		Consents: []*Consent{
			{App: ContosoSystemClientID, Roles: fullScopes(appPermissions)},
			{App: ContosoCertificateClientID, Roles: fullScopes(appPermissions)},
		},
	}
}

var appPermissions = []string{
	"https://outlook.office365.com/SMTP.SendAsApp", "https://outlook.office365.com/IMAP.AccessAsApp",
	"https://outlook.office365.com/POP.AccessAsApp", "https://graph.microsoft.com/Mail.Send",
	"https://graph.microsoft.com/Mail.ReadWrite", "https://graph.microsoft.com/User.Read.All",
}

func fabrikam() *Tenant {
	return &Tenant{
		ID: FabrikamTenantID, Name: "Fabrikam", Domains: []string{"fabrikam.example"},
		Licences: 1,
		Users: []*User{
			{ID: "f0e1d2c3-0001-4b5a-9d8c-6f7e80b1a2d3", Address: "admin@fabrikam.example", Name: "Fay Admin",
				Password: ContosoPassword, Roles: []string{RoleGlobalAdmin}},
			{ID: "f0e1d2c3-0002-4b5a-9d8c-6f7e80b1a2d3", Address: "robin@fabrikam.example", Name: "Robin Counts",
				Password: ContosoPassword},
		},
		Mailboxes: []*Mailbox{
			{Address: "admin@fabrikam.example", Name: "Fay Admin"},
			{Address: "robin@fabrikam.example", Name: "Robin Counts"},
		},
		Apps: []*App{{ID: FabrikamClientID, Name: "Fabrikam Mail", AnyLoopback: true,
			Secrets:   []Secret{{ID: "5e0b1c7a-4444-4f3d-9a2b-8c6d4e5f0a14", Value: FabrikamClientSecret}},
			Delegated: []string{"User.Read", "https://outlook.office.com/SMTP.Send", "Mail.Send"}}},
	}
}

func consumers() *Tenant {
	return &Tenant{
		ID: consumersTenant, Name: "Microsoft Accounts", Domains: []string{"outlook.example"},
		Licences: 1,
		Users: []*User{{ID: "00000000-0000-4000-8000-0000c0ffee01", Address: "pat@outlook.example", Name: "Pat Private",
			Password: ContosoPassword}},
		Mailboxes: []*Mailbox{{Address: "pat@outlook.example", Name: "Pat Private"}},
	}
}

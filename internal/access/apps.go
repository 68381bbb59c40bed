package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/mailgrant/mailgrant"
)

const maxName = 64

var (
	classes = []mailgrant.Class{mailgrant.ClassUser, mailgrant.ClassSystem}
	doors   = []string{"smtp", "rest"}
)

// CreateApp adds an app and gives it as it was kept.
func (a *Access) CreateApp(ctx context.Context, app mailgrant.App) (mailgrant.App, error) {
	app.Name = strings.TrimSpace(app.Name)
	app.ID = mailgrant.NewID(mailgrant.PrefixApp)
	app.CreatedAt = a.now().UTC()
	app.UpdatedAt = app.CreatedAt
	if err := a.checkApp(ctx, app); err != nil {
		return mailgrant.App{}, err
	}
	if err := a.store.CreateApp(ctx, app); err != nil {
		return mailgrant.App{}, err
	}
	return app, nil
}

// UpdateApp replaces the settings of an app. Open sessions follow.
func (a *Access) UpdateApp(ctx context.Context, app mailgrant.App) (mailgrant.App, error) {
	old, err := a.store.App(ctx, app.Org, app.ID)
	if err != nil {
		return mailgrant.App{}, err
	}
	app.Name = strings.TrimSpace(app.Name)
	app.CreatedAt, app.UpdatedAt = old.CreatedAt, a.now().UTC()
	if err := a.checkApp(ctx, app); err != nil {
		return mailgrant.App{}, err
	}
	defer a.cache.changed()
	if err := a.store.UpdateApp(ctx, app); err != nil {
		return mailgrant.App{}, err
	}
	return app, nil
}

// DeleteApp removes an app and its keys.
func (a *Access) DeleteApp(ctx context.Context, org, id mailgrant.ID) error {
	defer a.cache.changed()
	return a.store.DeleteApp(ctx, org, id)
}

func (a *Access) checkApp(ctx context.Context, app mailgrant.App) error {
	if err := checkName(app.Name); err != nil {
		return err
	}
	for i, c := range app.Classes {
		if !slices.Contains(classes, c) {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "there is no class of submissions called %q", c).
				Fix("choose from user, system").At(at("classes", i))
		}
	}
	for i, d := range app.Doors {
		if !slices.Contains(doors, d) {
			return mailgrant.Errorf(mailgrant.Invalid, nil, "there is no door called %q", d).
				Fix("choose from smtp, rest").At(at("doors", i))
		}
	}
	for i, s := range app.Senders {
		if err := CheckRule(s); err != nil {
			return err.At(at("senders", i))
		}
	}
	if app.PerMinute < 0 {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "an app cannot have fewer than no submissions a minute").
			Fix("give 0 for no limit").At("per_minute")
	}
	return a.checkReferences(ctx, app)
}

// checkReferences looks whether the mailboxes are there and the name is free.
func (a *Access) checkReferences(ctx context.Context, app mailgrant.App) error {
	for i, id := range app.Mailboxes {
		_, err := a.store.Mailbox(ctx, app.Org, id)
		if errors.Is(err, mailgrant.NotFound) {
			return mailgrant.Errorf(mailgrant.Invalid, err, "there is no mailbox %s", id).
				Fix("take an id from: mailgrant mailbox list").At(at("mailboxes", i))
		}
		if err != nil {
			return err
		}
	}
	same, err := a.store.AppByName(ctx, app.Name)
	if err != nil {
		return err
	}
	for _, other := range same {
		if other.Org == app.Org && other.ID != app.ID {
			return mailgrant.Errorf(mailgrant.Conflict, nil, "there is already an app called %s", other.Name).
				Fix("choose another name").At("name")
		}
	}
	return nil
}

// checkName keeps names fit to be user names: never to be taken for an address
// or an id.
func checkName(name string) error {
	switch {
	case name == "" || len(name) > maxName:
		return mailgrant.Errorf(mailgrant.Invalid, nil, "an app needs a name of 1 to %d letters", maxName).
			Fix("choose one like case-manager").At("name")
	case strings.ContainsAny(name, "@:\"<>\\") || hasControl(name):
		return mailgrant.Errorf(mailgrant.Invalid, nil, "the name of an app is also its user name and cannot hold @ : \" < > \\ or line breaks").
			Fix("choose one like case-manager").At("name")
	case strings.HasPrefix(strings.ToLower(name), mailgrant.PrefixApp+"_"), strings.HasPrefix(strings.ToLower(name), keyPrefix):
		return mailgrant.Errorf(mailgrant.Invalid, nil, "a name that begins with %q could be taken for an id or a key", name[:4]).
			Fix("choose one like case-manager").At("name")
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func at(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

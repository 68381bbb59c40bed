package api

import (
	"context"
	"strings"
	"time"
	"unicode"

	"github.com/mailgrant/mailgrant"
	"github.com/mailgrant/mailgrant/client"
)

func (c *call) listOrganizations() error {
	return page(c, func(ctx context.Context, org, after mailgrant.ID, limit int) ([]mailgrant.Organization, error) {
		if c.by.Operator {
			return c.Store.OrganizationsAfter(ctx, after, limit)
		}
		own, err := c.Store.Organization(ctx, org)
		if err != nil || own.ID <= after {
			return nil, err
		}
		return []mailgrant.Organization{own}, nil
	}, func(o mailgrant.Organization) mailgrant.ID { return o.ID })
}

// named is the organization that the path names, if the caller may know of it.
func (c *call) named() (mailgrant.Organization, error) {
	id := mailgrant.ID(c.args[0])
	if !c.by.Operator && id != c.by.Org {
		return mailgrant.Organization{}, noOrganization(id)
	}
	return c.Store.Organization(c.r.Context(), id)
}

func (c *call) getOrganization() error {
	o, err := c.named()
	if err != nil {
		return err
	}
	return c.reply(o)
}

func (c *call) createOrganization() error {
	var s client.OrganizationSettings
	if err := c.decode(&s); err != nil {
		return err
	}
	o := mailgrant.Organization{ID: mailgrant.NewID(mailgrant.PrefixOrganization), CreatedAt: time.Now().UTC()}
	set(&o.Name, s.Name)
	if err := checkName(&o.Name, "an organization"); err != nil {
		return err
	}
	if err := c.Store.CreateOrganization(c.r.Context(), o); err != nil {
		return err
	}
	return c.made(o, "/v1/organizations/"+string(o.ID))
}

func (c *call) updateOrganization() error {
	o, err := c.named()
	if err != nil {
		return err
	}
	var s client.OrganizationSettings
	if err := c.decode(&s); err != nil {
		return err
	}
	set(&o.Name, s.Name)
	if err := checkName(&o.Name, "an organization"); err != nil {
		return err
	}
	if err := c.Store.UpdateOrganization(c.r.Context(), o); err != nil {
		return err
	}
	return c.reply(o)
}

func (c *call) deleteOrganization() error {
	if err := c.nothing(); err != nil {
		return err
	}
	if err := c.Store.DeleteOrganization(c.r.Context(), mailgrant.ID(c.args[0])); err != nil {
		return err
	}
	return c.done()
}

// set takes what was given.
func set[T any](to *T, given *T) {
	if given != nil {
		*to = *given
	}
}

const nameMax = 100

// checkName keeps names to one line that people can read.
func checkName(name *string, of string) error {
	*name = strings.TrimSpace(*name)
	if *name == "" || len(*name) > nameMax || strings.ContainsFunc(*name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return mailgrant.Errorf(mailgrant.Invalid, nil, "%s needs a name: one line of up to %d letters", of, nameMax).Fix("choose another one").At("name")
	}
	return nil
}

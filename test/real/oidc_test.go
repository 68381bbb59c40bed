package real_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/mailgrant/mailgrant/test/real"
)

func TestAPersonConsents(t *testing.T) {
	p, ctx := real.NewOIDC(t, real.OIDCOptions{}), t.Context()
	tok, err := p.SignIn(ctx, real.Login{Address: real.Alex, Password: real.Password})
	if err != nil {
		t.Fatal(err)
	}
	if tok.AccessToken == "" || tok.RefreshToken == "" || tok.IDToken == "" || !strings.EqualFold(tok.TokenType, "bearer") {
		t.Fatalf("incomplete: %+v", tok)
	}
	if strings.Count(tok.AccessToken, ".") != 2 {
		t.Fatalf("the access token is no JWT: %q", tok.AccessToken)
	}
	if got := p.Counts(t); got.Token["authorization_code"] != 1 || got.Authorize == 0 {
		t.Fatalf("counts: %+v", got)
	}
}

func TestRefreshTokensRotateAndAnOldOneEndsTheGrant(t *testing.T) {
	p, ctx := real.NewOIDC(t, real.OIDCOptions{}), t.Context()
	first, err := p.SignIn(ctx, real.Login{Address: real.Alex, Password: real.Password})
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.Refresh(ctx, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if second.RefreshToken == "" || second.RefreshToken == first.RefreshToken {
		t.Fatal("the refresh token did not change")
	}
	for _, old := range []string{first.RefreshToken, second.RefreshToken} {
		var refused *real.TokenError
		if _, err := p.Refresh(ctx, old); !errors.As(err, &refused) || refused.Code != "invalid_grant" {
			t.Fatalf("got %v, want invalid_grant", err)
		}
	}
	if got := p.Counts(t); got.Token["refresh_token"] != 1 || got.TokenErrors["invalid_grant"] != 2 {
		t.Fatalf("counts: %+v", got)
	}
}

func TestTheProviderRefuses(t *testing.T) {
	p, ctx := real.NewOIDC(t, real.OIDCOptions{}), t.Context()
	if _, err := p.SignIn(ctx, real.Login{Address: real.Alex, Password: "wrong"}); !errors.Is(err, real.ErrPage) {
		t.Errorf("wrong password: %v", err)
	}
	if _, err := p.SignIn(ctx, real.Login{Address: real.Alex, Password: real.Password, Deny: true}); err == nil || !strings.Contains(err.Error(), "access_denied") {
		t.Errorf("denied: %v", err)
	}
	authorize := p.Issuer + "/auth?" + url.Values{"client_id": {p.ClientID}, "response_type": {"code"}, "redirect_uri": {p.Callback},
		"scope": {"openid"}, "state": {"s"}}.Encode()
	back, err := p.Consent(ctx, authorize, real.Login{Address: real.Alex, Password: real.Password})
	if err != nil || !strings.Contains(back, "error=invalid_request") || !strings.Contains(back, "iss=") {
		t.Errorf("without PKCE: %s %v", back, err)
	}
	authorize = strings.ReplaceAll(authorize, url.QueryEscape(p.Callback), url.QueryEscape("https://evil.example/"))
	if _, err := p.Consent(ctx, authorize, real.Login{}); !errors.Is(err, real.ErrPage) {
		t.Errorf("foreign redirect address: %v", err)
	}
}

func TestTheAppHasTokensOfItsOwn(t *testing.T) {
	p := real.NewOIDC(t, real.OIDCOptions{})
	tok, err := p.AppToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if tok.RefreshToken != "" || strings.Count(tok.AccessToken, ".") != 2 || tok.Scope != "mail.send mail.read" {
		t.Fatalf("%+v", tok)
	}
}

func TestARevokedGrantIsOver(t *testing.T) {
	p, ctx := real.NewOIDC(t, real.OIDCOptions{OpaqueTokens: true}), t.Context()
	tok, err := p.SignIn(ctx, real.Login{Address: real.Robin, Password: real.Password})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(tok.AccessToken, ".") == 2 {
		t.Fatal("an opaque token was asked for")
	}
	if err := p.Revoke(ctx, tok.RefreshToken); err != nil {
		t.Fatal(err)
	}
	var refused *real.TokenError
	if _, err := p.Refresh(ctx, tok.RefreshToken); !errors.As(err, &refused) || refused.Code != "invalid_grant" {
		t.Fatalf("got %v, want invalid_grant", err)
	}
}

// A provider that we did not write: oidc-provider with two clients, users, and
// plain pages for signing in and for consent. Settings come as JSON in SETTINGS;
// what a test needs to know goes to standard output as one line of JSON. It ends
// when its standard input does.
import { createHash, createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { Provider } from 'oidc-provider';

const settings = JSON.parse(process.env.SETTINGS);
const counts = { token: {}, token_errors: {}, authorize: 0, keys: 0, introspection: 0 };

// The subject is opaque, as with real providers; the address is a claim.
const subjectOf = (address) => createHash('sha256').update(address.toLowerCase()).digest('hex').slice(0, 24);
const accounts = new Map(Object.keys(settings.users).map((address) => [subjectOf(address), address.toLowerCase()]));

// The key goes through its text: while Node 20 writes a new key as a JWK, the
// garbage of its making may be collected, which waits for that very key.
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048,
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' }, publicKeyEncoding: { type: 'spki', format: 'pem' } });
const jwk = { ...createPrivateKey(privateKey).export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: settings.key_id };

const server = https.createServer({ cert: readFileSync(settings.cert), key: readFileSync(settings.key) });
await new Promise((up) => server.listen(settings.port, '127.0.0.1', up));
const issuer = `https://localhost:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: settings.client_id,
      client_secret: settings.client_secret,
      redirect_uris: settings.redirect_uris,
      post_logout_redirect_uris: [],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: settings.auth_method,
    },
    {
      client_id: settings.app_client_id,
      client_secret: settings.app_client_secret,
      redirect_uris: [],
      grant_types: ['client_credentials'],
      response_types: [],
      token_endpoint_auth_method: settings.auth_method,
    },
  ],
  jwks: { keys: [jwk] },
  cookies: { keys: ['a throw-away key of one test'] },
  scopes: ['openid', 'offline_access', 'email', 'profile', ...settings.scopes],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  conformIdTokenClaims: false, // the address is in the ID token too
  pkce: { required: () => true },
  rotateRefreshToken: true, // a used one that comes again ends the whole grant
  ttl: {
    AccessToken: settings.token_seconds, ClientCredentials: settings.token_seconds,
    AuthorizationCode: 60, IdToken: 3600, Interaction: 3600, Grant: 14 * 86400, Session: 86400, RefreshToken: settings.refresh_seconds,
  },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true, allowedPolicy: () => true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => settings.resource,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: settings.scopes.join(' '),
        audience: resource,
        accessTokenTTL: settings.token_seconds,
        accessTokenFormat: settings.opaque ? 'opaque' : 'jwt',
        ...(settings.opaque ? {} : { jwt: { sign: { alg: 'RS256' } } }),
      }),
    },
  },
  // Dovecot 2.3 takes nothing but "JWT", which is what Microsoft writes too.
  formats: { customizers: { jwt: (ctx, token, jwt) => { jwt.header = { ...jwt.header, typ: 'JWT' }; } } },
  // A server of mail knows mailboxes, not subjects. The app's own token speaks
  // for one mailbox.
  extraTokenClaims: (ctx, token) => {
    const email = token.accountId ? accounts.get(token.accountId) : settings.app_mailbox;
    return email ? { email } : {};
  },
  findAccount: (ctx, id) => accounts.has(id) && {
    accountId: id,
    claims: () => ({ sub: id, email: accounts.get(id), email_verified: true, name: accounts.get(id).split('@')[0] }),
  },
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  renderError: (ctx, out) => {
    ctx.type = 'html';
    ctx.body = page('Error', `<h1>This cannot go on</h1><p id="error">${escape(out.error)}: ${escape(out.error_description ?? '')}</p>`);
  },
});
provider.on('grant.success', (ctx) => bump(counts.token, ctx.oidc.params.grant_type));
provider.on('grant.error', (ctx, err) => bump(counts.token_errors, err.error ?? err.name));
provider.on('server_error', (ctx, err) => console.error(err));

function bump(map, name) { map[name] = (map[name] ?? 0) + 1; }
function escape(s) { return String(s).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`); }
function page(title, body) {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${escape(title)}</title>
<meta name="viewport" content="width=device-width"><style>body{font:16px/1.5 sans-serif;max-width:26rem;margin:4rem auto;padding:0 1rem}
label,input,button{display:block;font:inherit;margin:.4rem 0}input{width:100%;box-sizing:border-box;padding:.4rem}</style>${body}</html>`;
}

async function interaction(req, res) {
  const details = await provider.interactionDetails(req, res);
  const { prompt, params, session, uid } = details;
  if (req.method !== 'POST') {
    res.setHeader('content-type', 'text/html; charset=utf-8');
    res.end(prompt.name === 'login' ? signIn(uid, params.login_hint ?? '') : consent(uid, params, session));
    return undefined;
  }
  const form = new URLSearchParams(await body(req));
  if (form.get('do') === 'deny') {
    return provider.interactionFinished(req, res, { error: 'access_denied', error_description: 'The owner of the mailbox said no' });
  }
  if (prompt.name === 'login') {
    const address = (form.get('address') ?? '').toLowerCase();
    if (!accounts.has(subjectOf(address)) || settings.users[accounts.get(subjectOf(address))] !== form.get('password')) {
      res.statusCode = 401;
      res.setHeader('content-type', 'text/html; charset=utf-8');
      res.end(signIn(uid, address, 'The address or the password is wrong.'));
      return undefined;
    }
    return provider.interactionFinished(req, res, { login: { accountId: subjectOf(address) } });
  }
  const grant = details.grantId ? await provider.Grant.find(details.grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  const { missingOIDCScope, missingOIDCClaims, missingResourceScopes } = prompt.details;
  if (missingOIDCScope) grant.addOIDCScope(missingOIDCScope.join(' '));
  if (missingOIDCClaims) grant.addOIDCClaims(missingOIDCClaims);
  for (const [resource, scopes] of Object.entries(missingResourceScopes ?? {})) grant.addResourceScope(resource, scopes.join(' '));
  return provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
}

function signIn(uid, address, wrong) {
  return page('Sign in', `<h1>Sign in</h1>${wrong ? `<p role="alert">${wrong}</p>` : ''}
<form method="post" action="/interaction/${uid}">
<label for="address">Address</label><input id="address" name="address" value="${escape(address)}" autocomplete="username">
<label for="password">Password</label><input id="password" name="password" type="password" autocomplete="current-password">
<button name="do" value="login">Sign in</button><button name="do" value="deny">Cancel</button></form>`);
}

function consent(uid, params, session) {
  const asked = (params.scope ?? '').split(' ').map((s) => `<li>${escape(s)}</li>`).join('');
  return page('Consent', `<h1>Allow ${escape(params.client_id)}?</h1><p>${escape(accounts.get(session.accountId))}</p><ul>${asked}</ul>
<form method="post" action="/interaction/${uid}"><button name="do" value="consent">Allow</button><button name="do" value="deny">Deny</button></form>`);
}

async function body(req) {
  let out = '';
  for await (const part of req) {
    out += part;
    if (out.length > 65536) throw new Error('the form is too large');
  }
  return out;
}

const serve = provider.callback();
server.on('request', (req, res) => {
  const { pathname } = new URL(req.url, issuer);
  if (pathname === '/auth') counts.authorize += 1;
  if (pathname === '/jwks') counts.keys += 1;
  if (pathname === '/token/introspection') counts.introspection += 1;
  if (!pathname.startsWith('/interaction/')) return serve(req, res);
  return interaction(req, res).catch((err) => {
    res.statusCode = 400;
    res.setHeader('content-type', 'text/html; charset=utf-8');
    res.end(page('Error', `<h1>This cannot go on</h1><p id="error">${escape(err.error ?? err.name)}: ${escape(err.error_description ?? err.message)}</p>`));
  });
});

// The test reads what happened over a door of its own.
const control = http.createServer((req, res) => {
  res.setHeader('content-type', 'application/json');
  res.end(JSON.stringify(counts));
});
await new Promise((up) => control.listen(0, '127.0.0.1', up));

const { n, e, kty } = jwk;
console.log(JSON.stringify({ issuer, control: `http://127.0.0.1:${control.address().port}`, public_key: { n, e, kty } }));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));

// Chromium for tests: reads requests as lines of JSON, {"page": 1, "do": "click",
// "with": {…}}, and answers each with a line, {"value": …} or {"error": "…"}. It
// ends, and Chromium with it, when its standard input does.
import { createInterface } from 'node:readline';
import { AxeBuilder } from '@axe-core/playwright';
import { chromium } from 'playwright-core';

const settings = JSON.parse(process.env.SETTINGS);
const browser = await chromium.launch({
  executablePath: settings.chromium,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
    '--disable-sync', '--disable-dev-shm-usage', '--force-prefers-reduced-motion'],
});
const pages = new Map();

// here is true for addresses of this machine.
const here = (url) => ['localhost', '127.0.0.1', '[::1]'].includes(new URL(url).hostname) || new URL(url).hostname.endsWith('.localhost');

// open makes a page with cookies of its own. What is not of this machine is
// answered with an empty page and noted.
async function open(id, o) {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true, javaScriptEnabled: !o.noScript, colorScheme: o.dark ? 'dark' : 'light', locale: 'en-GB', timezoneId: 'UTC',
    viewport: { width: o.width || 1280, height: o.height || 800 },
  });
  context.setDefaultTimeout(settings.milliseconds);
  const p = { context, page: await context.newPage(), elsewhere: [], faults: [] };
  await context.route((url) => ['http:', 'https:'].includes(url.protocol) && !here(url.href), (route) => {
    p.elsewhere.push(route.request().url());
    return route.fulfill({ status: 200, contentType: 'text/html', body: '<!doctype html><html lang="en"><title>Elsewhere</title><p>Nobody is here.</p></html>' });
  });
  context.on('page', (page) => { watch(p, page); });
  watch(p, p.page);
  pages.set(id, p);
}

// watch notes what a careful person sees in the developer's tools.
function watch(p, page) {
  if (page.watched) return;
  page.watched = true;
  page.on('pageerror', (err) => p.faults.push(`script: ${err.message}`));
  page.on('console', (line) => { if (line.type() === 'error') p.faults.push(`console: ${line.text()}`); });
}

const verbs = {
  open: (_, w, id) => open(id, w),
  close: async (p, w, id) => { pages.delete(id); await p.context.close(); },
  goto: async (p, w) => (await p.page.goto(w.url))?.status() ?? 0,
  click: (p, w) => p.page.locator(w.at).click(),
  fill: (p, w) => p.page.locator(w.at).fill(w.text),
  select: (p, w) => p.page.locator(w.at).selectOption({ label: w.text }),
  attach: (p, w) => p.page.locator(w.at).setInputFiles(w.text),
  press: (p, w) => p.page.keyboard.press(w.text),
  text: (p, w) => p.page.locator(w.at).innerText(),
  value: (p, w) => p.page.locator(w.at).inputValue(),
  count: (p, w) => p.page.locator(w.at).count(),
  attribute: (p, w) => p.page.locator(w.at).getAttribute(w.text),
  focused: (p) => p.page.evaluate(() => document.activeElement?.innerText || document.activeElement?.id || document.activeElement?.tagName || ''),
  wait: (p, w) => p.page.locator(w.at).first().waitFor(),
  waiturl: (p, w) => p.page.waitForURL((url) => url.href.includes(w.text)),
  url: (p) => p.page.url(),
  title: (p) => p.page.title(),
  html: (p) => p.page.content(),
  back: (p) => p.page.goBack(),
  reload: (p) => p.page.reload(),
  screenshot: (p, w) => p.page.screenshot({ path: w.text, fullPage: true, animations: 'disabled' }).then(() => null),
  elsewhere: (p) => p.elsewhere,
  faults: (p) => p.faults,
  axe: async (p) => {
    const { violations } = await new AxeBuilder({ page: p.page }).withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']).analyze();
    return violations.map((v) => `${v.id} (${v.impact}): ${v.help}: ${v.nodes.map((n) => n.target.join(' ')).join(', ')}`);
  },
};

async function answer(line) {
  const { page, do: verb, with: w } = JSON.parse(line);
  try {
    const value = await verbs[verb](pages.get(page), w ?? {}, page);
    return { value: value === undefined || typeof value === 'object' && !Array.isArray(value) ? null : value };
  } catch (err) {
    return { error: err.message.replace(/\x1b\[[0-9;]*m/g, '') };
  }
}

console.log(JSON.stringify({ version: browser.version() }));
for await (const line of createInterface({ input: process.stdin })) console.log(JSON.stringify(await answer(line)));
await browser.close();

// Signing in by OpenID Connect, at an issuer of our own.
import { strict as assert } from "node:assert";
import { accessible, address, ended, issuer, open, picture, say, until } from "../harness.mjs";

const into = (page) => page.getByRole("button", { name: `Sign in with ${new URL(issuer.url).host}` }).click();

async function entered() {
  const page = await open({ signedIn: false, signsIn: true });
  await into(page);
  await page.getByLabel("Message").waitFor();
  return page;
}

export const checks = {
  async "signed in by code: talks, sees what operators see, stays over a reload, leaves no code behind"() {
    const page = await open({ signedIn: false, signsIn: true });
    await page.goto(`${address}/#/audit`);
    await page.getByRole("button", { name: /^Sign in with/ }).waitFor();
    await accessible(page, "sign in, with an issuer");
    await picture(page, "sign-in-issuer");
    await into(page);
    // Back where they were.
    await page.getByRole("heading", { name: "Audit" }).waitFor();
    assert.equal(new URL(page.url()).search, "");
    await page.goto(`${address}/#/talk`);
    await say(page, "/fast Hello");
    await ended(page);
    await page.reload();
    await ended(page);
    const kept = await page.evaluate(() => ({ session: Object.keys(sessionStorage), local: Object.keys(localStorage), cookies: document.cookie }));
    assert.ok(kept.session.includes("colloquy.tokens"), "tokens are in session storage");
    assert.deepEqual([kept.local.filter((name) => name !== "colloquy.theme"), kept.cookies], [[], ""]);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("API key").waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await page.context().close();
  },

  async "a token is renewed in silence; once that is refused, somebody signs in again and is back where they were"() {
    issuer.lifetime = 30;
    const page = await entered();
    const before = issuer.refreshed;
    await page.goto(`${address}/#/usage`);
    await page.getByRole("heading", { name: "Usage and cost" }).waitFor();
    await until("it was renewed", async () => issuer.refreshed > before);
    assert.equal(await page.locator(".problem").count(), 0);
    issuer.revoked = true;
    await page.goto(`${address}/#/turns`);
    await page.getByText("Your sign-in has ended. What is here stays").waitFor();
    await accessible(page, "an ended sign-in");
    await picture(page, "sign-in-ended");
    Object.assign(issuer, { revoked: false, lifetime: 3600 });
    await page.getByRole("button", { name: "Sign in again" }).click();
    // The page they leave has that heading too, until it is gone.
    await page.locator(".ended").waitFor({ state: "detached" });
    await page.getByRole("heading", { name: "Turns" }).waitFor();
    assert.equal(await page.locator(".ended").count(), 0);
    await page.context().close();
  },

  async "what is no sign-in of this tab, or not what was asked for, signs nobody in and says why"() {
    const page = await open({ signedIn: false, signsIn: true });
    const refused = async (text) => {
      await page.getByRole("alert").getByText(text).waitFor();
      assert.equal(new URL(page.url()).search, "");
      assert.equal(await page.evaluate(() => sessionStorage.getItem("colloquy.tokens")), null);
    };
    await page.goto(`${address}/?code=stolen&state=guessed`);
    await refused(/not begun in this tab/);
    await picture(page, "sign-in-refused");
    issuer.refusal = "access_denied";
    await into(page);
    await refused(/access_denied/);
    Object.assign(issuer, { refusal: null, nonce: "another" });
    await into(page);
    await refused(/not what was asked for/);
    issuer.nonce = null;
    await into(page);
    await page.getByLabel("Message").waitFor();
    await page.context().close();
  },
};

// Verifies an event with the library of the Standard Webhooks specification, with each of the secrets; then a forged one.
import { Webhook } from "standardwebhooks";

const { headers, body, secrets } = JSON.parse(process.argv[2]);

/** @param {string} secret @param {string} text */
function verified(secret, text) {
  try {
    const event = new Webhook(secret).verify(text, headers);
    return event.id === headers["webhook-id"] ? "valid" : "other";
  } catch {
    return "forged";
  }
}

console.log(...secrets.map((/** @type {string} */ secret) => verified(secret, body)), verified(secrets[0], body + " "));

// @ts-check
// The dialog that invites others: the link of the room, to be copied or scanned.

import { byId } from './element.js';

/**
 * Returns a function that copies the link, and opens the dialog with it.
 * @param {string} link
 * @param {string} code the address of the picture
 */
export function prepareInvitation(link, code) {
  const dialog = byId('invite', HTMLDialogElement);
  const field = byId('invite-link', HTMLInputElement);
  const copied = byId('invite-copied');
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(link);
      copied.hidden = false;
    } catch {
      // Without permission, or without https, the user copies what is selected.
      field.select();
    }
  };
  field.value = link;
  byId('invite-copy').addEventListener('click', copy);
  return () => {
    byId('invite-code', HTMLImageElement).src = code;
    copied.hidden = true;
    dialog.showModal();
    return copy();
  };
}

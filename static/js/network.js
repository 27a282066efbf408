// @ts-check
// Changes of the network that the browser reveals.

/**
 * Calls `changed` when the network is back, and when its type changes where the browser reveals it (Network Information API).
 * @param {() => void} changed
 * @param {AbortSignal} signal
 */
export function watchNetwork(changed, signal) {
  addEventListener('online', changed, { signal });
  const { connection } = /** @type {Navigator & { connection?: EventTarget & { type?: string } }} */ (navigator);
  if (!connection) return;
  let type = connection.type;
  const compare = () => {
    // Most events are new estimates of the same network's speed.
    if (connection.type !== type) changed();
    type = connection.type;
  };
  connection.addEventListener('change', compare, { signal });
}

// @ts-check
// The rooms that were joined in this browser lately; no server knows this list.

const KEY = 'satsuma.recent';
const MAX_ROOMS = 6;

/** @returns {string[]} */
export function recentRooms() {
  try {
    const rooms = JSON.parse(localStorage.getItem(KEY) ?? '[]');
    return Array.isArray(rooms) ? rooms.filter((room) => typeof room === 'string').slice(0, MAX_ROOMS) : [];
  } catch {
    return [];
  }
}

/** @param {string} room */
export function rememberRoom(room) {
  const rooms = [room, ...recentRooms().filter((known) => known !== room)];
  localStorage.setItem(KEY, JSON.stringify(rooms.slice(0, MAX_ROOMS)));
}

export function forgetRooms() {
  localStorage.removeItem(KEY);
}

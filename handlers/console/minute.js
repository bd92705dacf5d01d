// How many events were appended in each half second of the last minute.
//
// Owns the counting by the server's clock, read off the ids: a replay lands where it belongs in time and is no burst of now, and a browser whose clock
// is wrong draws the same picture. The server's present is the latest time any id told, carried on by this page's steady clock.
// Cost per event: two array writes.

export const SLOTS = 120;
export const SLOT_MS = 500;
// The newest slot is still filling; a rate over the whole ones before it does not flicker.
const RATE_SLOTS = 4;

export class Minute {
  constructor() {
    this.counts = new Array(SLOTS).fill(0);
    this.stamps = new Array(SLOTS).fill(-1);
    this.offset = null;
  }

  /** An event appended at `time` (milliseconds, or null if its id does not tell: then it counts as of now). */
  add(time) {
    if (time !== null) this.hear(time);
    const slot = Math.floor((time ?? this.now()) / SLOT_MS);
    const index = slot % SLOTS;
    if (this.stamps[index] > slot) return;
    if (this.stamps[index] < slot) {
      this.stamps[index] = slot;
      this.counts[index] = 0;
    }
    this.counts[index] += 1;
  }

  /** The server's clock was at `time` or later. */
  hear(time) {
    const offset = time - performance.now();
    if (this.offset === null || offset > this.offset) this.offset = offset;
  }

  now() {
    return this.offset === null ? Date.now() : this.offset + performance.now();
  }

  /** The counts by slot of the ring, and which slot is the present. */
  view() {
    const present = Math.floor(this.now() / SLOT_MS);
    const counts = this.counts.map((count, index) => (this.stamps[index] > present - SLOTS ? count : 0));
    return { counts, head: present % SLOTS };
  }

  perSecond() {
    const { counts, head } = this.view();
    let sum = 0;
    for (let back = 1; back <= RATE_SLOTS; back += 1) sum += counts[(head - back + SLOTS) % SLOTS];
    return sum / ((RATE_SLOTS * SLOT_MS) / 1000);
  }
}

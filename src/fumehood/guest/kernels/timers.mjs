// One-shot timers of user code, so that a call can wait for those that its cell left, as the end of a script would.

/**
 * Have `setTimeout` keep account of what is pending. `call(callback)` calls a timer's callback.
 *
 * The account: `startCall()` forgets what earlier calls left; `millisecondsLeft(until)` is how long until the next
 * timer that is due before `until` (in Date's milliseconds), and undefined if there is none; `isPending(timer)`.
 */
export function trackTimers(call) {
  const { setTimeout: set, clearTimeout: clear } = globalThis;
  const { now } = Date;
  const { apply } = Reflect;
  const { max } = Math;
  const pending = new Map();
  const add = pending.set.bind(pending);
  const remove = pending.delete.bind(pending);
  const has = pending.has.bind(pending);
  const each = pending.forEach.bind(pending);
  const forget = pending.clear.bind(pending);

  function setTimeout(callback, delay, ...values) {
    if (typeof callback !== "function") return set(callback, delay, ...values);
    const timer = set(() => {
      remove(timer);
      call(() => apply(callback, undefined, values));
    }, delay);
    add(timer, now() + max(Number(delay) || 0, 1));
    return timer;
  }

  function clearTimeout(timer) {
    remove(timer);
    return clear(timer);
  }

  for (const [wrapper, original] of [[setTimeout, set], [clearTimeout, clear]]) {
    Object.defineProperties(wrapper, Object.getOwnPropertyDescriptors(original));
    Object.defineProperty(globalThis, original.name, { value: wrapper, writable: true, configurable: true, enumerable: true });
  }

  return {
    startCall: forget,
    isPending: has,
    millisecondsLeft(until) {
      let next;
      each((due, timer) => {
        if (due > until || timer?.hasRef?.() === false) return;
        if (next === undefined || due < next) next = due;
      });
      return next === undefined ? undefined : max(next - now(), 1);
    },
  };
}

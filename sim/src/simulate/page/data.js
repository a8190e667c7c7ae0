// Draws the run that lies in the page. What is shown (filters, part of time, chosen event) is kept in the address, so that a
// view can be passed on.
(() => {
'use strict';

const by = id => document.getElementById(id);
addEventListener('error', event => {
  by('failure').hidden = false;
  by('failure').textContent = 'This page has failed: ' + event.message;
});

// ---- The data ----

const run = JSON.parse(by('run').textContent);
const { lanes: laneRows, txns, keys, phases, end } = run.chart;
const KINDS = [
  ['timestamps', /^Tso$/], ['regions', /^(Get(Region|Store|Members|AllStores|PrevRegion)|ScanRegions|BatchScanRegions|QueryRegion)/],
  ['reads', /^(Get|BatchGet|Scan|BufferBatchGet)$/], ['prewrite', /^(Prewrite|Pessimistic|Flush)/], ['commit', /^Commit$/],
  ['resolve', /^(CheckTxnStatus|CheckSecondaryLocks|ResolveLock|TxnHeartBeat|BatchRollback|Cleanup|ScanLock)/], ['raw', /^Raw/],
  ['other', /./],
];
const kindOf = name => KINDS.find(([, names]) => names.test(name))[0];

const lanes = laneRows.map(([name, kind]) => ({ name, kind, sessions: 0, troubles: 0, on: true, top: 0, height: 0 }));
const flights = run.chart.flights.map(([message, from, to, sent, arrived, fate, isReply, isCopy, name, txn, keys, region, text], id) =>
  ({ what: 'flight', id, message, from, to, at: sent, arrived, fate, isReply, isCopy, name, txn, keys, region, text, kind: kindOf(name) }));
const marks = run.chart.marks.map(([lane, at, sign, name, message, txn, keys, text], id) =>
  ({ what: 'mark', id, lane, at, sign, name, message, txn, keys, text }));
const spans = run.chart.spans.map(([lane, sort, name, from, to, session, txn, text], id) =>
  ({ what: 'span', id, lane, sort, name, at: from, to, session, txn, text, keys: [] }));
for (const span of spans) if (span.sort === 'fault' || span.sort === 'down') lanes[span.lane].troubles++;
for (const span of spans) lanes[span.lane].sessions = Math.max(lanes[span.lane].sessions, span.sort === 'txn' || span.sort === 'operation' ? span.session + 1 : 0);
const things = [...flights, ...marks, ...spans].sort((a, b) => a.at - b.at || order(a) - order(b));
function order(thing) { return thing.what === 'mark' ? 0 : thing.what === 'flight' ? 1 : 2; }

// Which keys a transaction touches: its spans belong to them.
const keysOfTxn = new Map();
for (const thing of things) {
  if (thing.txn === null || thing.what === 'span') continue;
  if (!keysOfTxn.has(thing.txn)) keysOfTxn.set(thing.txn, new Set());
  for (const key of thing.keys) keysOfTxn.get(thing.txn).add(key);
}
for (const span of spans) span.keys = [...(keysOfTxn.get(span.txn) || [])];

// ---- Time and where it is drawn ----

// Hours may pass between two bursts of messages. With gaps shortened, time runs evenly from event to event up to a bound,
// and only as the logarithm of what is longer.
const moments = Float64Array.from(new Set([0, end, ...things.map(t => t.at), ...flights.map(f => f.arrived ?? f.at), ...spans.map(s => s.to)])).sort();
const shortened = (() => {
  const gaps = Array.from(moments.subarray(1), (moment, index) => moment - moments[index]).sort((a, b) => a - b);
  const bound = Math.max(1, 4 * (gaps[Math.floor(gaps.length * 0.8)] || 1));
  const places = new Float64Array(moments.length);
  for (let i = 1; i < moments.length; i++) {
    const gap = moments[i] - moments[i - 1];
    places[i] = places[i - 1] + (gap <= bound ? gap : bound * (1 + 0.5 * Math.log2(gap / bound)));
  }
  return { places, bound };
})();

function between(xs, ys, x) {
  let low = 0, high = xs.length - 1;
  if (high <= 0 || x <= xs[0]) return ys[0] ?? 0;
  if (x >= xs[high]) return ys[high];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  return ys[low] + (ys[high] - ys[low]) * (x - xs[low]) / (xs[high] - xs[low]);
}
const place = time => state.even ? between(moments, shortened.places, time) : time;
const timeAt = spot => state.even ? between(shortened.places, moments, spot) : spot;
const whole = () => [0, Math.max(place(end), 1)];
const x = spot => (spot - state.view[0]) / (state.view[1] - state.view[0]) * width;
const spotAt = pixel => state.view[0] + pixel / width * (state.view[1] - state.view[0]);

function shownTime(us, step) {
  const digits = step >= 1e6 ? 0 : step >= 1e5 ? 1 : step >= 1e4 ? 2 : step >= 1e3 ? 3 : step >= 100 ? 4 : step >= 10 ? 5 : 6;
  return (us / 1e6).toFixed(digits) + ' s';
}
function shownLength(us) {
  return us >= 1e6 ? (us / 1e6).toFixed(2) + ' s' : us >= 1e3 ? (us / 1e3).toFixed(2) + ' ms' : us.toFixed(1) + ' µs';
}

// ---- What is shown ----

const state = { txn: '', key: '', kinds: new Set(KINDS.map(([kind]) => kind)), even: true, view: [0, 1], chosen: null };
const present = new Set(flights.map(flight => flight.kind));

function remember() {
  const words = new URLSearchParams();
  if (state.txn) words.set('txn', state.txn);
  if (state.key) words.set('key', state.key);
  const hidden = [...present].filter(kind => !state.kinds.has(kind));
  if (hidden.length) words.set('without', hidden.join(','));
  const off = lanes.filter(lane => !lane.on).map(lane => lane.name);
  if (off.length) words.set('off', off.join(','));
  if (!state.even) words.set('time', 'linear');
  const [from, to] = state.view, [first, last] = whole();
  if (from > first || to < last) words.set('at', [timeAt(from), timeAt(to)].map(time => time.toFixed(3)).join('-'));
  if (state.chosen) words.set('chosen', state.chosen.what + state.chosen.id);
  const text = words.toString();
  if (text !== location.hash.slice(1)) history.replaceState(null, '', text ? '#' + text : location.pathname + location.search);
}

function recall() {
  const words = new URLSearchParams(location.hash.slice(1));
  state.txn = words.get('txn') || '';
  state.key = words.get('key') || '';
  const without = (words.get('without') || '').split(',');
  state.kinds = new Set(KINDS.map(([kind]) => kind).filter(kind => !without.includes(kind)));
  const off = (words.get('off') || '').split(',');
  for (const lane of lanes) lane.on = !off.includes(lane.name);
  state.even = words.get('time') !== 'linear';
  const [from, to] = (words.get('at') || '').split('-').map(Number);
  state.view = to > from ? [place(from), place(to)] : words.get('at') === 'all' || !run.violation || location.hash.length > 1 ? fitted() : aroundViolation();
  const [, what, id] = /^(flight|mark|span)(\d+)$/.exec(words.get('chosen') || '') || [];
  state.chosen = { flight: flights, mark: marks, span: spans }[what]?.[id] || null;
}

let filtered = { things: [], flights: [], marks: [], spans: [] };
function filter() {
  const txn = state.txn ? txns.indexOf(state.txn) : null;
  const key = state.key ? keys.indexOf(state.key) : null;
  const fits = thing => (txn === null || thing.txn === txn) && (key === null || thing.keys.includes(key)) &&
    (thing.what === 'flight' ? state.kinds.has(thing.kind) && lanes[thing.from].on && lanes[thing.to].on : lanes[thing.lane].on);
  // Faults, and the rule that is broken, concern all.
  const common = thing => lanes[thing.lane]?.on && (thing.sort === 'fault' || thing.sort === 'down' ||
    thing.what === 'mark' && ['fault', 'recovery', 'violation'].includes(thing.sign));
  const shown = things.filter(thing => fits(thing) || common(thing));
  filtered = { things: shown, flights: shown.filter(t => t.what === 'flight'), marks: shown.filter(t => t.what === 'mark'), spans: shown.filter(t => t.what === 'span') };
  by('txn').className = !state.txn ? '' : txn < 0 ? 'unknown' : 'set';
  by('key').className = !state.key ? '' : key < 0 ? 'unknown' : 'set';
}

function fitted() {
  if (!state.txn && !state.key) return whole();
  filter();
  const own = filtered.things.filter(thing => thing.txn !== null && (thing.what === 'flight' || thing.what === 'span' || thing.sign !== 'fault'));
  if (!own.length) return whole();
  return padded(Math.min(...own.map(t => place(t.at))), Math.max(...own.map(t => place(t.arrived ?? t.to ?? t.at))));
}
function padded(from, to) {
  const [, last] = whole();
  const pad = Math.max((to - from) * 0.06, last * 1e-5, 1);
  return [Math.max(0, from - pad), Math.min(last + pad, to + pad)];
}
function aroundViolation() {
  const named = new Set(run.violation.txns.map(txn => txns.indexOf(txn)));
  const own = things.filter(thing => named.has(thing.txn) && thing.txn !== null);
  const last = place(run.violation.at);
  const first = own.length ? Math.min(...own.map(thing => place(thing.at))) : last - place(end) * 0.05;
  // Of a long story, its end.
  const few = flights.length > 400 ? place(flights[flights.length - 400].at) : 0;
  return padded(Math.max(0, first, few), last);
}


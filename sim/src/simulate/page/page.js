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

// ---- Drawing ----

const canvas = by('chart'), overview = by('overview');
let width = 1, height = 1, colours = {};

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ['back', 'front', 'ink', 'soft', 'line', 'band', 'accent', 'good', 'bad', 'warn', 'fault', 'down', 'committed',
    'read-only', 'rolled-back', 'undetermined', 'abandoned', 'running', ...KINDS.map(([kind]) => kind)];
  colours = Object.fromEntries(names.map(name => [name, style.getPropertyValue('--' + name).trim()]));
  colours['read only'] = colours['read-only'];
  colours['rolled back'] = colours['given up'] = colours['rolled-back'];
}

const AXIS = 22, ROW = 9;
function layOut() {
  let top = AXIS + 4;
  const room = by('lanes').parentElement.clientHeight - AXIS - 10;
  const least = lane => !lane.on ? 16 : lane.kind === 'client' ? Math.max(24, 8 + lane.sessions * ROW) : lane.kind === 'world' ? 22 : 24;
  const spare = room - lanes.reduce((sum, lane) => sum + least(lane), 0);
  // What lies between two lanes is where lines run: the more of it, the better they are told apart.
  const wide = index => lanes[index + 1] && lanes[index].kind !== 'world' && !(lanes[index].kind === 'pd' && lanes[index + 1].kind === 'pd');
  const gaps = lanes.filter((_, index) => wide(index)).length;
  const narrow = 12;
  const gap = Math.min(190, Math.max(20, (spare - narrow * (lanes.length - 1 - gaps)) / Math.max(1, gaps)));
  lanes.forEach((lane, index) => {
    lane.top = top;
    lane.height = least(lane);
    top += lane.height + (wide(index) ? gap : narrow);
  });
  height = Math.max(top + 8, AXIS + room);
  const labels = by('lanes').children;
  lanes.forEach((lane, index) => {
    labels[index].style.top = lane.top + 'px';
    labels[index].style.height = lane.height + 'px';
    labels[index].firstChild.setAttribute('aria-pressed', lane.on);
  });
  by('lanes').style.height = height + 'px';
}

function prepared(canvas, w, h) {
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(w * scale) || canvas.height !== Math.round(h * scale)) {
    canvas.width = Math.round(w * scale);
    canvas.height = Math.round(h * scale);
    canvas.style.height = h + 'px';
  }
  const pen = canvas.getContext('2d');
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, w, h);
  pen.font = '11px system-ui, "DejaVu Sans", sans-serif';
  return pen;
}

/** Where a message leaves and arrives: at the edges of its lanes that face each other. */
function ends(flight) {
  const from = lanes[flight.from], to = lanes[flight.to], down = from.top < to.top;
  const y0 = down ? from.top + from.height : from.top, y1 = down ? to.top : to.top + to.height;
  const x0 = x(place(flight.at));
  if (flight.arrived !== null) return { x0, y0, x1: x(place(flight.arrived)), y1, down };
  // What does not arrive gets as far as is of no consequence.
  const part = flight.fate === 'open' ? 0.7 : 0.45;
  const reach = flight.fate === 'open' ? Math.max(x(place(end)) - x0, 8) * part : Math.min(40, 10 + width * 0.01);
  return { x0, y0, x1: x0 + reach, y1: y0 + (y1 - y0) * part, down };
}

let drawn = { flights: 0, marks: 0, spans: 0 };
function draw() {
  width = Math.max(60, canvas.parentElement.clientWidth);
  layOut();
  const pen = prepared(canvas, width, height);
  drawn = { flights: 0, marks: 0, spans: 0 };
  drawPhases(pen);
  drawLanes(pen);
  drawSpans(pen);
  drawFlights(pen);
  drawMarks(pen);
  drawViolation(pen);
  drawAxis(pen);
  drawChosen(pen);
  drawOverview();
  count();
}

function drawPhases(pen) {
  phases.forEach(([name, at], index) => {
    const from = x(place(at)), to = index + 1 < phases.length ? x(place(phases[index + 1][1])) : width;
    if (to < 0 || from > width) return;
    if (index > 0) {
      pen.strokeStyle = colours.line;
      pen.setLineDash([2, 3]);
      line(pen, from, AXIS, from, height);
      pen.setLineDash([]);
    }
    if (to - from > 50) text(pen, name, Math.max(from, 0) + 6, height - 6, colours.soft);
  });
}

function drawLanes(pen) {
  for (const lane of lanes) {
    pen.fillStyle = colours.band;
    pen.globalAlpha = lane.on ? 1 : 0.4;
    pen.fillRect(0, lane.top, width, lane.height);
    pen.globalAlpha = 1;
  }
}

function drawSpans(pen) {
  for (const span of filtered.spans) {
    const lane = lanes[span.lane], from = x(place(span.at)), to = x(place(span.to));
    if (to < 0 || from > width) continue;
    drawn.spans++;
    const left = Math.max(from, -2), long = Math.max(Math.min(to, width + 2) - left, 1.5);
    if (span.sort === 'fault' || span.sort === 'down') {
      // Many at once are no darker than a few.
      pen.globalAlpha = Math.min(1, 4 / lane.troubles);
      pen.fillStyle = colours[span.sort];
      pen.fillRect(left, lane.top, long, lane.height);
      pen.globalAlpha = 1;
      if (span.sort === 'down') hatch(pen, left, lane.top, long, lane.height);
      continue;
    }
    const y = lane.top + 4 + span.session * ROW;
    if (span.sort === 'txn') {
      pen.fillStyle = colours[span.name] || colours.running;
      bar(pen, left, y, long, ROW - 3);
    } else {
      pen.fillStyle = colours.soft;
      pen.globalAlpha = 0.45;
      pen.fillRect(left, y + ROW - 3, long, 1);
      pen.globalAlpha = 1;
    }
  }
}

function hatch(pen, left, top, long, tall) {
  pen.save();
  pen.beginPath();
  pen.rect(left, top, long, tall);
  pen.clip();
  pen.strokeStyle = colours.bad;
  pen.globalAlpha = 0.35;
  pen.beginPath();
  const first = Math.floor((left - tall) / 8) * 8;
  for (let at = first; at < left + long; at += 8) {
    pen.moveTo(at, top + tall);
    pen.lineTo(at + tall, top);
  }
  pen.stroke();
  pen.restore();
}

function drawFlights(pen) {
  const visible = [];
  for (const flight of filtered.flights) {
    const path = ends(flight);
    if (Math.max(path.x0, path.x1) >= 0 && Math.min(path.x0, path.x1) <= width) visible.push([flight, path]);
  }
  drawn.flights = visible.length;
  const dense = visible.length / width;
  const alpha = Math.min(0.95, Math.max(0.08, 0.35 / Math.max(dense, 0.01)));
  const heads = dense < 1.1, labels = dense < 0.12;
  pen.lineWidth = dense < 0.4 ? 1.5 : 1;
  let taken = [];
  for (const [flight, { x0, y0, x1, y1, down }] of visible) {
    const amiss = ['lost', 'dropped', 'refused'].includes(flight.fate);
    pen.strokeStyle = pen.fillStyle = amiss ? colours.bad : colours[flight.kind];
    pen.globalAlpha = amiss ? Math.max(alpha, 0.6) : flight.fate === 'unheard' ? alpha * 0.5 : alpha;
    pen.setLineDash(amiss || flight.fate === 'open' || flight.fate === 'unheard' ? [3, 3] : !heads ? [] : flight.isCopy ? [7, 2, 2, 2] : flight.isReply ? [6, 2] : []);
    line(pen, x0, y0, x1, y1);
    pen.setLineDash([]);
    if (amiss) cross(pen, x1, y1, 3.5);
    else if (heads && flight.arrived !== null) head(pen, x0, y0, x1, y1);
    if (labels && !flight.isReply) {
      const y = y0 + (down ? 11 : -5), long = pen.measureText(flight.name).width;
      const free = left => left >= 2 && !taken.some(([l, r, t]) => left < r && l < left + long && Math.abs(t - y) < 11);
      // Beside the line, on the side where it does not run.
      const spot = x0 - long - 4;
      if (free(spot)) {
        pen.globalAlpha = 0.95;
        text(pen, flight.name, spot, y, pen.fillStyle);
        taken.push([spot - 4, spot + long + 4, y]);
      }
    }
  }
  pen.globalAlpha = 1;
  pen.lineWidth = 1;
}

const SIGNS = { lock: ['prewrite', 'up'], unlock: ['soft', 'down'], commit: ['good', 'dot'], rollback: ['bad', 'dash'], failure: ['warn', 'ring'],
  fault: ['bad', 'flash'], recovery: ['good', 'flash'] };
function drawMarks(pen) {
  const visible = filtered.marks.filter(mark => { const at = x(place(mark.at)); return at >= -4 && at <= width + 4; });
  drawn.marks = visible.length;
  const small = visible.length / width > 0.6, labels = [];
  for (const mark of visible) {
    if (!SIGNS[mark.sign]) continue;
    const lane = lanes[mark.lane], at = x(place(mark.at)), [colour, shape] = SIGNS[mark.sign];
    pen.fillStyle = pen.strokeStyle = colours[colour];
    pen.globalAlpha = small && shape !== 'flash' ? 0.6 : 1;
    glyph(pen, shape, at, markHeight(mark), small ? 2.5 : 4);
    if (shape === 'flash') labels.push([mark, at, lane]);
  }
  pen.globalAlpha = 1;
  let last = new Map();
  for (const [mark, at, lane] of labels) {
    if (mark.sign !== 'fault') continue;
    if (at < (last.get(lane) ?? -1)) continue;
    const long = pen.measureText(mark.name).width;
    text(pen, mark.name, at + 6, lane.kind === 'world' ? lane.top + lane.height / 2 + 4 : lane.top - 3, colours.bad);
    last.set(lane, at + long + 14);
  }
}

function markHeight(mark) {
  const lane = lanes[mark.lane];
  const share = { lock: 0.3, unlock: 0.7, commit: 0.5, rollback: 0.5 }[mark.sign] ?? (mark.sign === 'failure' ? 0.92 : 0.5);
  return lane.top + lane.height * share;
}

function glyph(pen, shape, at, y, size) {
  pen.beginPath();
  if (shape === 'up') { pen.moveTo(at - size, y + size * 0.8); pen.lineTo(at + size, y + size * 0.8); pen.lineTo(at, y - size * 0.9); pen.fill(); }
  else if (shape === 'down') { pen.moveTo(at - size, y - size * 0.8); pen.lineTo(at + size, y - size * 0.8); pen.lineTo(at, y + size * 0.9); pen.closePath(); pen.stroke(); }
  else if (shape === 'dot') { pen.arc(at, y, size * 0.85, 0, 7); pen.fill(); }
  else if (shape === 'ring') { pen.arc(at, y, size * 0.7, 0, 7); pen.stroke(); }
  else if (shape === 'dash') { cross(pen, at, y, size * 0.8); }
  else { pen.moveTo(at, y - size - 1); pen.lineTo(at + size, y); pen.lineTo(at, y + size + 1); pen.lineTo(at - size, y); pen.closePath(); pen.fill(); }
}

function drawViolation(pen) {
  if (!run.violation) return;
  const at = x(place(run.violation.at));
  if (at < -5 || at > width + 5) return;
  pen.strokeStyle = pen.fillStyle = colours.bad;
  pen.lineWidth = 2;
  line(pen, at, AXIS, at, height);
  pen.lineWidth = 1;
  const lane = lanes[run.violation.lane];
  if (lane) {
    pen.beginPath();
    pen.arc(at, lane.top + lane.height / 2, 7, 0, 7);
    pen.lineWidth = 2.5;
    pen.stroke();
    pen.lineWidth = 1;
  }
  const label = run.violation.rule, long = pen.measureText(label).width + 12;
  const left = at + long > width ? at - long : at;
  pen.fillRect(left, AXIS, long, 16);
  text(pen, label, left + 6, AXIS + 12, colours.front);
}

function drawAxis(pen) {
  pen.fillStyle = colours.front;
  pen.fillRect(0, 0, width, AXIS - 1);
  pen.strokeStyle = colours.line;
  line(pen, 0, AXIS - 0.5, width, AXIS - 0.5);
  const spots = ticks();
  spots.forEach((time, index) => {
    const at = x(place(time)), near = Math.min(...[spots[index - 1], spots[index + 1]].map(other => Math.abs((other ?? time + 1e6) - time)));
    pen.strokeStyle = colours.line;
    line(pen, at, AXIS - 5, at, AXIS);
    const label = shownTime(time, near);
    const long = pen.measureText(label).width;
    text(pen, label, Math.min(Math.max(at - long / 2, 2), width - long - 2), 13, colours.soft);
  });
  if (!state.even) return;
  // Where time is shortened a lot, the axis says so.
  pen.strokeStyle = colours.soft;
  for (let i = 1; i < moments.length; i++) {
    const gap = moments[i] - moments[i - 1];
    if (gap < shortened.bound * 16) continue;
    const from = x(shortened.places[i - 1]), to = x(shortened.places[i]);
    if (to < 0 || from > width || to - from < 9) continue;
    const middle = (from + to) / 2;
    pen.beginPath();
    pen.moveTo(middle - 4, AXIS + 3); pen.lineTo(middle - 1, AXIS - 4); pen.moveTo(middle + 1, AXIS + 3); pen.lineTo(middle + 4, AXIS - 4);
    pen.stroke();
  }
}

function ticks() {
  if (state.even) {
    const found = [];
    for (let at = 55; at < width - 30; at += 120) {
      const wanted = timeAt(spotAt(at));
      // The roundest number nearby.
      let unit = 1e9;
      while (unit > 0.01 && Math.abs(x(place(Math.round(wanted / unit) * unit)) - at) > 30) unit /= 10;
      const time = Math.round(wanted / unit) * unit;
      if (!found.length || x(place(time)) - x(place(found[found.length - 1])) > 80) found.push(time);
    }
    return found;
  }
  const [from, to] = state.view, rough = (to - from) / Math.max(1, width / 120), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(step => step >= rough);
  const found = [];
  for (let time = Math.ceil(from / step) * step; time <= to; time += step) found.push(time);
  return found;
}

function drawChosen(pen) {
  const thing = state.chosen;
  if (!thing) return;
  pen.strokeStyle = colours.ink;
  pen.lineWidth = 2.5;
  if (thing.what === 'flight') {
    const { x0, y0, x1, y1 } = ends(thing);
    line(pen, x0, y0, x1, y1);
    pen.beginPath();
    pen.arc(x0, y0, 4, 0, 7);
    pen.stroke();
  } else if (thing.what === 'mark') {
    pen.beginPath();
    pen.arc(x(place(thing.at)), markHeight(thing), 8, 0, 7);
    pen.stroke();
  } else {
    const [left, top, long, tall] = box(thing);
    pen.strokeRect(left, top, long, tall);
  }
  pen.lineWidth = 1;
}

function box(span) {
  const lane = lanes[span.lane], from = x(place(span.at)), long = Math.max(x(place(span.to)) - from, 2);
  if (span.sort === 'fault' || span.sort === 'down') return [from, lane.top, long, lane.height];
  return [from, lane.top + 3 + span.session * ROW, long, ROW];
}

function drawOverview() {
  const w = Math.max(60, overview.clientWidth), h = 46;
  const pen = prepared(overview, w, h), [, last] = whole();
  const columns = Math.floor(w / 2), counts = new Float64Array(columns), wrong = new Uint8Array(columns);
  const column = time => Math.min(columns - 1, Math.floor(place(time) / last * columns));
  for (const flight of filtered.flights) {
    counts[column(flight.at)]++;
    if (flight.fate === 'lost' || flight.fate === 'dropped') wrong[column(flight.at)] = 1;
  }
  const most = Math.max(1, ...counts);
  for (const span of filtered.spans) {
    if (span.sort !== 'fault' && span.sort !== 'down') continue;
    pen.globalAlpha = Math.min(1, 4 / lanes.reduce((sum, lane) => sum + lane.troubles, 0));
    pen.fillStyle = colours.fault;
    const from = place(span.at) / last * w;
    pen.fillRect(from, 0, Math.max(1, place(span.to) / last * w - from), h);
  }
  for (let i = 0; i < columns; i++) {
    if (!counts[i]) continue;
    const tall = Math.sqrt(counts[i] / most) * (h - 12);
    pen.fillStyle = wrong[i] ? colours.bad : colours.reads;
    pen.globalAlpha = 0.75;
    pen.fillRect(i * 2, h - tall, 1.5, tall);
  }
  pen.globalAlpha = 1;
  pen.fillStyle = colours.bad;
  for (const mark of filtered.marks) if (mark.sign === 'fault') pen.fillRect(place(mark.at) / last * w, 0, 1, 7);
  const [from, to] = state.view.map(spot => spot / last * w);
  pen.fillStyle = colours.back;
  pen.globalAlpha = 0.72;
  pen.fillRect(0, 0, from, h);
  pen.fillRect(to, 0, w - to, h);
  pen.globalAlpha = 1;
  pen.strokeStyle = colours.accent;
  pen.strokeRect(Math.max(0.5, from), 0.5, Math.max(2, Math.min(to, w - 0.5) - Math.max(0.5, from)), h - 1);
  if (run.violation) {
    pen.fillStyle = colours.bad;
    pen.fillRect(Math.min(w - 2, place(run.violation.at) / last * w - 1), 0, 2, h);
  }
}

function line(pen, x0, y0, x1, y1) { pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke(); }
function bar(pen, left, top, long, tall) { pen.beginPath(); pen.roundRect(left, top, long, tall, Math.min(3, long / 2)); pen.fill(); }
function cross(pen, at, y, size) { pen.beginPath(); pen.moveTo(at - size, y - size); pen.lineTo(at + size, y + size); pen.moveTo(at + size, y - size); pen.lineTo(at - size, y + size); pen.stroke(); }
function head(pen, x0, y0, x1, y1) {
  const angle = Math.atan2(y1 - y0, x1 - x0), size = 6;
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x1 - size * Math.cos(angle - 0.4), y1 - size * Math.sin(angle - 0.4));
  pen.lineTo(x1 - size * Math.cos(angle + 0.4), y1 - size * Math.sin(angle + 0.4));
  pen.fill();
}
function text(pen, words, at, y, colour) {
  // What runs behind words is kept a little away from them.
  pen.save();
  pen.strokeStyle = colours.front;
  pen.lineWidth = 3;
  pen.lineJoin = 'round';
  if (colour !== colours.front) pen.strokeText(words, at, y);
  pen.restore();
  pen.fillStyle = colour;
  pen.fillText(words, at, y);
}

function count() {
  const output = by('counts'), number = n => n.toLocaleString('en');
  output.textContent = `${number(filtered.flights.length)} of ${number(flights.length)} messages, ${number(filtered.marks.length)} of ${number(marks.length)} marks`;
  Object.assign(output.dataset, {
    lanes: lanes.length, flights: flights.length, flightsShown: filtered.flights.length, flightsDrawn: drawn.flights,
    marks: marks.length, marksShown: filtered.marks.length, marksDrawn: drawn.marks, spansDrawn: drawn.spans,
  });
}

let asked = false;
function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; draw(); remember(); });
}
function refilter() { filter(); redraw(); }

// ---- What is told of an event ----

const WORDS = {
  delivered: 'delivered', open: 'under way when the run ended', lost: 'lost', dropped: 'arrived where nobody was any more',
  refused: 'not delivered', unheard: 'nobody waited for it any more',
};
function titleOf(thing) {
  if (thing.what === 'flight') return thing.name + (thing.isReply ? ' answered' : '') + (thing.isCopy ? ' (once more)' : '');
  if (thing.what === 'mark') return thing.name;
  return thing.sort === 'txn' ? `transaction ${thing.name}` : thing.sort === 'operation' ? thing.name : `${thing.name}`;
}
function colourOf(thing) {
  if (thing.what === 'flight') return colours[thing.kind];
  if (thing.what === 'mark') return colours[SIGNS[thing.sign]?.[0]] || colours.bad;
  return thing.sort === 'txn' ? colours[thing.name] || colours.running : thing.sort === 'operation' ? colours.soft : colours.bad;
}
function placeOf(thing) {
  if (thing.what === 'flight') return `${lanes[thing.from].name} → ${lanes[thing.to].name}`;
  // What befalls the network says which links.
  return lanes[thing.lane].kind === 'world' ? /[^:]*[→←↔][^:]*$/.exec(thing.text)?.[0].trim() ?? 'the cluster' : lanes[thing.lane].name;
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter(child => child !== null));
  return element;
}
const press = (words, action) => make('button', { type: 'button', textContent: words, onclick: action });

function tell() {
  const panel = by('panel'), thing = state.chosen;
  panel.replaceChildren();
  if (!thing) {
    panel.append(make('p', { className: 'none', textContent: 'Choose an event to see what it is.' }), ...storyOf('Faults', marks.filter(mark => mark.sign === 'fault')));
    return;
  }
  const title = make('h2', {}, make('i'), titleOf(thing));
  title.firstChild.style.setProperty('--colour', colourOf(thing));
  const facts = [['where', placeOf(thing)], [thing.what === 'flight' ? 'sent' : 'at', shownTime(thing.at, 1)]];
  if (thing.what === 'flight') {
    facts.push(['fate', WORDS[thing.fate] + (thing.arrived !== null ? ` after ${shownLength(thing.arrived - thing.at)}` : '')], ['message', '#' + thing.message]);
    if (thing.region) facts.push(['region', String(thing.region)]);
  }
  if (thing.what === 'span') facts.push(['for', shownLength(thing.to - thing.at)]);
  if (thing.txn !== null) facts.push(['transaction', press(txns[thing.txn], () => only('txn', txns[thing.txn]))]);
  if (thing.keys.length) facts.push(['keys', make('span', {}, ...thing.keys.slice(0, 40).flatMap(key => [press(keys[key], () => only('key', keys[key])), ' ']), thing.keys.length > 40 ? `and ${thing.keys.length - 40} more` : '')]);
  const list = make('dl', {}, ...facts.flatMap(([name, value]) => [make('dt', { textContent: name }), make('dd', {}, value)]));
  panel.append(title, list);
  if (thing.text) panel.append(make('pre', { textContent: thing.text }));
  if (thing.message) panel.append(...storyOf('This message', things.filter(other => other.message === thing.message)));
  if (thing.txn !== null) panel.append(...storyOf('This transaction', things.filter(other => other.txn === thing.txn)));
}

const MOST_TOLD = 300;
function storyOf(title, story) {
  if (!story.length) return [];
  const rows = story.slice(0, MOST_TOLD).map(thing => {
    const amiss = thing.sign === 'failure' || ['lost', 'dropped', 'refused'].includes(thing.fate);
    const row = make('li', { className: (amiss ? 'amiss ' : '') + (thing === state.chosen ? 'here' : '') });
    const button = press('', () => choose(thing, true));
    button.append(make('time', { textContent: shownTime(thing.at, 1) }), make('span', { textContent: `${titleOf(thing)} · ${placeOf(thing)}`, title: thing.text }));
    row.append(button);
    return row;
  });
  if (story.length > MOST_TOLD) rows.push(make('li', { textContent: `… and ${story.length - MOST_TOLD} more` }));
  return [make('h3', { textContent: title }), make('ol', {}, ...rows)];
}

function choose(thing, goThere) {
  state.chosen = thing;
  if (thing && goThere) reveal(thing);
  tell();
  redraw();
}
function reveal(thing) {
  const from = place(thing.at), to = place(thing.arrived ?? thing.at), [left, right] = state.view, wide = right - left;
  if (from < left + wide * 0.03 || to > right - wide * 0.03) move((from + to) / 2 - (left + right) / 2);
}
function step(by) {
  const list = filtered.things;
  const here = state.chosen ? list.indexOf(state.chosen) : -1;
  if (here >= 0) return choose(list[Math.min(list.length - 1, Math.max(0, here + by))] || null, true);
  const next = list.findIndex(thing => place(thing.at) >= state.view[0]);
  choose(list[next < 0 ? 0 : next] || null, true);
}
function only(what, value) {
  state[what] = value;
  by(what).value = value;
  filter();
  state.view = fitted();
  redraw();
}

// ---- Hands ----

function zoom(factor, pixel = width / 2) {
  const [from, to] = state.view, [, last] = whole(), centre = spotAt(pixel);
  const wide = Math.min(last, Math.max((to - from) * factor, last * 1e-7, 0.05));
  const share = (centre - from) / (to - from);
  state.view = bounded(centre - wide * share, wide);
  redraw();
}
function bounded(from, wide) {
  const [, last] = whole(), margin = Math.min(wide * 0.1, last);
  const left = Math.min(Math.max(from, wide >= last ? 0 : -margin), Math.max(last + margin - wide, 0));
  return [left, left + wide];
}
function move(spots) {
  const [from, to] = state.view;
  state.view = bounded(from + spots, to - from);
  redraw();
}

function hit(px, py) {
  let best = null, nearest = 7;
  const consider = (thing, distance) => { if (distance < nearest) { nearest = distance; best = thing; } };
  for (const mark of filtered.marks) {
    if (!SIGNS[mark.sign]) continue;
    const far = Math.hypot(x(place(mark.at)) - px, markHeight(mark) - py);
    consider(mark, far - 1.5);
  }
  for (const flight of filtered.flights) {
    const { x0, y0, x1, y1 } = ends(flight);
    if (px < Math.min(x0, x1) - 7 || px > Math.max(x0, x1) + 7 || py < Math.min(y0, y1) - 7 || py > Math.max(y0, y1) + 7) continue;
    const square = (x1 - x0) ** 2 + (y1 - y0) ** 2;
    const share = square ? Math.min(1, Math.max(0, ((px - x0) * (x1 - x0) + (py - y0) * (y1 - y0)) / square)) : 0;
    consider(flight, Math.hypot(px - x0 - share * (x1 - x0), py - y0 - share * (y1 - y0)));
  }
  if (best) return best;
  let inside = null;
  for (const span of filtered.spans) {
    const [left, top, long, tall] = box(span);
    if (px >= left - 2 && px <= left + long + 2 && py >= top && py <= top + tall && (!inside || span.sort === 'txn' || span.to - span.at < inside.to - inside.at)) inside = span;
  }
  return inside;
}

function showTip(thing, event) {
  const tip = by('tip');
  tip.hidden = !thing;
  canvas.classList.toggle('over', Boolean(thing));
  if (!thing) return;
  const lines = [placeOf(thing) + ' at ' + shownTime(thing.at, 1)];
  if (thing.what === 'flight') lines.push(`#${thing.message} ${WORDS[thing.fate]}` + (thing.arrived !== null ? ` after ${shownLength(thing.arrived - thing.at)}` : '') + (thing.region ? `, region ${thing.region}` : ''));
  if (thing.what === 'span') lines.push('for ' + shownLength(thing.to - thing.at));
  if (thing.txn !== null) lines.push('transaction ' + txns[thing.txn]);
  if (thing.keys.length) lines.push('keys ' + thing.keys.slice(0, 8).map(key => keys[key]).join(', ') + (thing.keys.length > 8 ? ' …' : ''));
  if (thing.text) lines.push(thing.text.length > 160 ? thing.text.slice(0, 160) + '…' : thing.text);
  tip.replaceChildren(make('b', { textContent: titleOf(thing) }), ...lines.map(line => make('div', { textContent: line })));
  const { width: wide, height: tall } = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - wide - 8)) + 'px';
  tip.style.top = (event.clientY + 18 + tall > innerHeight ? event.clientY - tall - 12 : event.clientY + 18) + 'px';
}

function listenToPointers() {
  let drag = null;
  const at = event => { const bounds = canvas.getBoundingClientRect(); return [event.clientX - bounds.left, event.clientY - bounds.top]; };
  canvas.addEventListener('wheel', event => {
    const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    event.preventDefault();
    if (sideways) move((event.deltaX || event.deltaY) / width * (state.view[1] - state.view[0]));
    else zoom(Math.exp(Math.max(-100, Math.min(100, event.deltaY)) * 0.003), at(event)[0]);
  }, { passive: false });
  canvas.addEventListener('pointerdown', event => {
    drag = { from: at(event), view: [...state.view], moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', event => {
    const [px, py] = at(event);
    if (!drag) return showTip(hit(px, py), event);
    if (Math.abs(px - drag.from[0]) > 3) drag.moved = true;
    if (!drag.moved) return;
    showTip(null);
    canvas.classList.add('moving');
    const wide = drag.view[1] - drag.view[0];
    state.view = bounded(drag.view[0] - (px - drag.from[0]) / width * wide, wide);
    redraw();
  });
  canvas.addEventListener('pointerup', event => {
    if (drag && !drag.moved) choose(hit(...at(event)));
    drag = null;
    canvas.classList.remove('moving');
  });
  canvas.addEventListener('pointercancel', () => { drag = null; });
  canvas.addEventListener('pointerleave', () => showTip(null));

  let brush = null;
  const spot = event => { const bounds = overview.getBoundingClientRect(); return (event.clientX - bounds.left) / bounds.width * whole()[1]; };
  overview.addEventListener('pointerdown', event => { brush = spot(event); overview.setPointerCapture(event.pointerId); });
  overview.addEventListener('pointermove', event => {
    if (brush === null || Math.abs(spot(event) - brush) < whole()[1] * 0.004) return;
    state.view = [Math.min(brush, spot(event)), Math.max(brush, spot(event))];
    redraw();
  });
  overview.addEventListener('pointerup', event => {
    if (brush !== null && Math.abs(spot(event) - brush) < whole()[1] * 0.004) move(brush - (state.view[0] + state.view[1]) / 2);
    brush = null;
  });
}

function reset() {
  Object.assign(state, { txn: '', key: '', kinds: new Set(KINDS.map(([kind]) => kind)), chosen: null });
  for (const lane of lanes) lane.on = true;
  state.view = whole();
  showControls();
  tell();
  refilter();
}

const HANDLERS = {
  ArrowLeft: () => move((state.view[0] - state.view[1]) * 0.15), ArrowRight: () => move((state.view[1] - state.view[0]) * 0.15),
  '+': () => zoom(0.7), '=': () => zoom(0.7), '-': () => zoom(1 / 0.7), 0: () => { state.view = whole(); redraw(); },
  '[': () => step(-1), ']': () => step(1), '/': () => by('txn').focus(), '?': () => by('help').showModal(),
  t: () => { if (state.chosen?.txn != null) only('txn', txns[state.chosen.txn]); },
  g: () => { setEven(!state.even); }, v: () => { if (run.violation) { state.view = aroundViolation(); redraw(); } }, Escape: reset,
};
function listenToKeys() {
  addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
    if (event.target.matches?.('input:not([type=checkbox])')) {
      if (event.key === 'Escape') event.target.blur();
      return;
    }
    const handler = HANDLERS[event.key] || HANDLERS[event.key.toLowerCase()];
    if (!handler) return;
    event.preventDefault();
    handler();
  });
}
function setEven(even) {
  const times = state.view.map(timeAt);
  state.even = even;
  state.view = times.map(place);
  if (state.view[1] <= state.view[0]) state.view = whole();
  showControls();
  redraw();
}

// ---- Controls ----

function showControls() {
  by('txn').value = state.txn;
  by('key').value = state.key;
  by('even').checked = state.even;
  for (const chip of by('kinds').children) chip.setAttribute('aria-pressed', state.kinds.has(chip.dataset.kind));
}

function build() {
  document.title = `seed ${run.seed}, ${run.workload} – tikv-sim`;
  by('title').textContent = `seed ${run.seed} · workload ${run.workload}`;
  by('badge').textContent = run.violation ? `broken: ${run.violation.rule}` : 'no violation';
  by('verdict').classList.toggle('broken', Boolean(run.violation));
  by('command').textContent = run.command;
  if (run.violation) {
    const { detail, event, txns: named, keys: concerned } = run.violation;
    by('detail').hidden = by('where').hidden = false;
    by('detail').textContent = detail;
    by('where').append('broken by: ' + (event || 'the end of the run').replace(/\s+/g, ' ').slice(0, 240), ' ',
      ...named.flatMap(txn => [press('transaction ' + txn, () => only('txn', txn)), ' ']),
      ...concerned.flatMap(key => [press('key ' + key, () => only('key', key)), ' ']));
  }
  by('txns').append(...txns.map(txn => make('option', { value: txn })));
  by('keys').append(...keys.map(key => make('option', { value: key })));
  by('lanes').append(...lanes.map(lane => make('li', {}, make('button', {
    type: 'button', textContent: lane.name, title: `Hide or show what concerns ${lane.name}`,
    onclick: () => { lane.on = !lane.on; refilter(); },
  }))));
  for (const [kind] of KINDS) {
    if (!present.has(kind)) continue;
    const chip = make('button', { type: 'button', className: 'chip', onclick: () => {
      if (state.kinds.has(kind)) state.kinds.delete(kind); else state.kinds.add(kind);
      showControls();
      refilter();
    } }, make('i'), kind, make('small', { textContent: flights.filter(flight => flight.kind === kind).length.toLocaleString('en') }));
    chip.dataset.kind = kind;
    chip.style.setProperty('--colour', `var(--${kind})`);
    by('kinds').append(chip);
  }
  by('about-text').textContent = [run.totals, run.options.split(' ').join('\n'), '', ...run.faults.map((fault, index) => `fault ${index}: ${fault}`)].join('\n');
  legend();
}

function legend() {
  const svg = content => { const span = document.createElement('span'); span.innerHTML = `<svg viewBox="0 0 16 10">${content}</svg>`; return span; };
  const stroke = (dash, colour = 'currentColor') => `<path d="M0 5H16" stroke="${colour}" stroke-width="1.5" stroke-dasharray="${dash}"/>`;
  const entries = [
    [stroke(''), 'request'], [stroke('6 2'), 'answer'], [stroke('7 2 2 2'), 'copy'],
    [stroke('3 3', 'var(--bad)') + '<path d="M9 2l6 6m0-6l-6 6" stroke="var(--bad)" stroke-width="1.5"/>', 'lost, not delivered'],
    ['<path d="M4 9h8L8 1z" fill="var(--prewrite)"/>', 'lock'], ['<path d="M4.500 2h7L8 8z" fill="none" stroke="var(--soft)"/>', 'unlock'],
    ['<circle cx="8" cy="5" r="3.500" fill="var(--good)"/>', 'commit'], ['<path d="M5 2l6 6m0-6l-6 6" stroke="var(--bad)" stroke-width="1.500"/>', 'rollback'],
    ['<circle cx="8" cy="5" r="3" fill="none" stroke="var(--warn)" stroke-width="1.500"/>', 'hears of a failure'],
    ['<path d="M8 0l5 5-5 5-5-5z" fill="var(--bad)"/>', 'fault'],
    ...['committed', 'read-only', 'rolled-back', 'undetermined', 'abandoned'].map(name => [`<rect y="2" width="16" height="6" rx="3" fill="var(--${name})"/>`, name.replace('-', ' ')]),
  ];
  for (const [content, words] of entries) {
    const entry = svg(content);
    entry.append(words);
    by('legend').append(entry);
  }
}

function listenToControls() {
  for (const what of ['txn', 'key']) {
    by(what).addEventListener('input', () => {
      state[what] = by(what).value.trim();
      const known = { txn: txns, key: keys }[what].includes(state[what]);
      if (known || !state[what]) { filter(); state.view = fitted(); redraw(); }
      else by(what).className = 'unknown';
    });
    by(what).addEventListener('change', refilter);
  }
  by('even').addEventListener('change', () => setEven(by('even').checked));
  by('in').onclick = HANDLERS['+'];
  by('out').onclick = HANDLERS['-'];
  by('all').onclick = HANDLERS[0];
  by('clear').onclick = reset;
  by('help-button').onclick = HANDLERS['?'];
  by('about-button').onclick = () => by('about').showModal();
  by('theme-button').onclick = () => setTheme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark');
  by('copy').onclick = async () => {
    try { await navigator.clipboard.writeText(run.command); by('copy').textContent = 'Copied'; }
    catch { getSelection().selectAllChildren(by('command')); }
  };
  addEventListener('resize', redraw);
  addEventListener('hashchange', () => { recall(); showControls(); filter(); tell(); redraw(); });
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  readColours();
  tell();
  redraw();
}

build();
const dark = matchMedia('(prefers-color-scheme: dark)');
document.documentElement.dataset.theme = dark.matches ? 'dark' : 'light';
dark.addEventListener('change', () => setTheme(dark.matches ? 'dark' : 'light'));
readColours();
recall();
showControls();
filter();
tell();
listenToPointers();
listenToKeys();
listenToControls();
draw();
document.documentElement.dataset.ready = 'true';
})();

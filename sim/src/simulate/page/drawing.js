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


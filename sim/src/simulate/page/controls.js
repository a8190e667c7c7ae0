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

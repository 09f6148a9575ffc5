/* The list of trajectories: filters, keys, links. What is shown of one is trajectory.js's business. */
(() => {
  const root = document.getElementById('viewer');
  if (!root) return;
  const all = page.trajectories;
  const byId = new Map(all.map((trajectory) => [trajectory.id, trajectory]));
  const related = new Map();
  const words = ({ raw, error, seen = {} }) => [raw, error, seen.text, ...(seen.failures || []).flatMap(Object.values), ...(seen.results || []).flatMap(Object.values)];
  for (const trajectory of all) {
    const name = `${trajectory.key}|${trajectory.key.startsWith('grpo') ? trajectory.step : ''}|${trajectory.questionId}`;
    related.set(name, [...(related.get(name) || []), trajectory]);
    trajectory.relatives = () => related.get(name);
    trajectory.text = [trajectory.question, trajectory.answer, ...(trajectory.answers || []), trajectory.kind, trajectory.questionId,
      trajectory.excluded, ...trajectory.turns.flatMap(words)].join(' ').toLowerCase();
  }

  /* ---- filters */

  const sourceOf = (trajectory) => (trajectory.key.startsWith('evaluate') ? `${trajectory.stage}: ${trajectory.policyName}` : trajectory.step ? `${trajectory.stage}: step ${trajectory.step}` : trajectory.stage);
  const groupOf = (trajectory) => (trajectory.key.startsWith('evaluate') ? trajectory.stage : sourceOf(trajectory));
  const troubles = {
    failure: ['with a tool failure', (trajectory) => trajectory.failures > 0],
    clean: ['without a tool failure', (trajectory) => !trajectory.failures],
    error: ['with a policy error', (trajectory) => trajectory.errors > 0],
  };
  const chosen = { source: '', outcome: '', trouble: '', behaviour: '', kind: '', text: '' };
  const tests = {
    source: (trajectory) => sourceOf(trajectory) === chosen.source || trajectory.stage === chosen.source,
    outcome: (trajectory) => trajectory.outcome === chosen.outcome,
    trouble: (trajectory) => troubles[chosen.trouble][1](trajectory),
    behaviour: (trajectory) => trajectory.behaviour === chosen.behaviour,
    kind: (trajectory) => trajectory.kind === chosen.kind,
    text: (trajectory) => chosen.text.split(/\s+/).every((word) => trajectory.text.includes(word)),
  };
  const matching = (except) => all.filter((trajectory) => Object.keys(tests).every((name) => name === except || !chosen[name] || tests[name](trajectory)));
  const unique = (values) => [...new Set(values.filter(Boolean))];

  function sources() {
    const stages = unique(all.map((trajectory) => trajectory.stage));
    return stages.flatMap((stage) => {
      const parts = unique(all.filter((trajectory) => trajectory.stage === stage).map(sourceOf));
      const more = parts.filter((part) => part !== stage);
      return [[stage, more.length ? `${stage}, all` : stage], ...more.map((part) => [part, `   ${part}`])];
    });
  }

  function select(name, label, options) {
    const list = h('select', { 'aria-label': label, onchange: () => { chosen[name] = list.value; refresh(); } },
      h('option', { value: '' }, label), options.map(([value, words]) => h('option', { value }, words)));
    return list;
  }

  const search = h('input', { type: 'search', placeholder: 'Search questions, answers, turns', 'aria-label': 'search',
    oninput: () => { chosen.text = search.value.trim().toLowerCase(); refresh(); } });
  const outcomes = ['correct', 'wrong', 'excluded', 'unjudged'].filter((outcome) => all.some((trajectory) => trajectory.outcome === outcome));
  const chips = outcomes.map((outcome) => {
    const number = h('small');
    const chip = h('button', { class: `chip ${outcome}`, 'aria-pressed': 'false', onclick: () => { chosen.outcome = chosen.outcome === outcome ? '' : outcome; refresh(); } },
      `${OUTCOMES[outcome][0]} ${OUTCOMES[outcome][1]} `, number);
    return { outcome, chip, number };
  });
  const kinds = unique(all.map((trajectory) => trajectory.kind)).sort();
  const selects = [
    select('source', 'All stages', sources()),
    select('trouble', 'Any trouble', Object.entries(troubles).map(([value, [words]]) => [value, words])),
    select('behaviour', 'Any behaviour', Object.entries(BEHAVIOURS)),
    kinds.length > 1 && select('kind', 'Any kind', kinds.map((kind) => [kind, `kind ${kind}`])),
  ].filter(Boolean);
  const found = h('p', { class: 'count' });
  const clear = h('button', { class: 'clear', onclick: reset }, 'show all');

  function reset() {
    for (const name of Object.keys(chosen)) chosen[name] = '';
    search.value = '';
    for (const list of selects) list.value = '';
    refresh();
  }

  /* ---- the list */

  const list = h('ol', { class: 'items', tabindex: 0, 'aria-label': 'trajectories' });
  const detail = h('div', { class: 'detail', 'aria-live': 'polite' });
  let current = null;
  let shown = [];
  let fit = () => {};

  function item(trajectory) {
    const image = page.images[trajectory.image];
    const way = trajectory.turns.map((turn) => turn.action).join(' › ');
    const path = trajectory.key.startsWith('evaluate') ? [h('b', {}, trajectory.policyName), ` ${way}`] : way;
    return h('li', {}, h('button', { class: `item ${trajectory.outcome}`, 'data-id': trajectory.id, tabindex: -1, onclick: () => go(trajectory) },
      image && image.src ? h('img', { src: image.src, alt: '', class: 'crisp', loading: 'lazy' }) : h('span', { class: 'missing' }, '?'),
      h('span', { class: 'words' }, h('span', { class: 'question' }, trajectory.question), h('span', { class: 'path' }, path)),
      h('span', { class: 'marks' }, h('b', { class: 'glyph', title: OUTCOMES[trajectory.outcome][1] }, OUTCOMES[trajectory.outcome][0]),
        trajectory.failures > 0 && h('b', { class: 'glyph failing', title: 'tool failure' }, '!'),
        trajectory.errors > 0 && h('b', { class: 'glyph erring', title: 'policy error' }, '?'))));
  }

  function refresh() {
    shown = matching();
    const parts = [];
    let last = '';
    for (const trajectory of shown) {
      const title = groupOf(trajectory);
      if (title !== last) parts.push(h('li', { class: 'group' }, title));
      last = title;
      parts.push(item(trajectory));
    }
    list.replaceChildren(...parts);
    list.scrollTop = 0;
    if (shown.length === 0) list.append(h('li', { class: 'nothing' }, 'No trajectory matches.'));
    const others = matching('outcome');
    for (const { outcome, chip, number } of chips) {
      number.textContent = others.filter((trajectory) => trajectory.outcome === outcome).length;
      chip.setAttribute('aria-pressed', String(chosen.outcome === outcome));
    }
    found.firstChild.textContent = shown.length === all.length ? `${all.length} trajectories ` : `${shown.length} of ${all.length} `;
    clear.hidden = shown.length === all.length;
    mark();
  }
  found.append('', clear);

  function mark() {
    for (const button of list.querySelectorAll('.item')) {
      const here = current && button.dataset.id === current.id;
      button.classList.toggle('here', Boolean(here));
      if (!here) continue;
      const top = button.offsetTop;
      if (top < list.scrollTop) list.scrollTop = top - 30;
      else if (top + button.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = top + button.offsetHeight - list.clientHeight + 30;
    }
  }

  /* ---- moving */

  function open(trajectory) {
    current = trajectory;
    const drawn = trajectoryView(trajectory, trajectory.relatives(), go);
    detail.replaceChildren(drawn.view);
    detail.scrollTop = 0;
    fit = drawn.fit;
    fit();
    mark();
  }

  function go(trajectory) {
    open(trajectory);
    try { history.replaceState(null, '', `#t=${trajectory.id}`); } catch { /* a page without a place of its own has no links */ }
  }

  function move(by) {
    if (shown.length === 0) return;
    const place = shown.indexOf(current);
    go(shown[Math.min(shown.length - 1, Math.max(0, place < 0 ? 0 : place + by))]);
  }

  function fromHash() {
    const id = location.hash.startsWith('#t=') ? decodeURIComponent(location.hash.slice(3)) : '';
    if (!byId.has(id)) return false;
    if (!shown.includes(byId.get(id))) reset();
    open(byId.get(id));
    root.scrollIntoView({ block: 'start' });
    return true;
  }

  const inView = () => {
    const { top, bottom } = root.getBoundingClientRect();
    return top < innerHeight * 0.75 && bottom > innerHeight * 0.25;
  };

  document.addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !inView()) return;
    if (event.target instanceof Element && event.target.matches('input, select, textarea')) {
      if (event.key === 'Escape') event.target.blur();
      return;
    }
    const listed = list.contains(event.target);
    const steps = { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1, ...(listed ? { ArrowDown: 1, ArrowUp: -1 } : {}) };
    if (event.key in steps) move(steps[event.key]);
    else if (event.key === '/') search.focus();
    else return;
    event.preventDefault();
  });
  addEventListener('hashchange', fromHash);
  addEventListener('resize', () => fit());

  root.append(
    h('aside', {}, h('div', { class: 'filters' }, search, h('div', { class: 'chips' }, chips.map(({ chip }) => chip)), h('div', { class: 'selects' }, selects), found), list),
    detail,
  );
  refresh();
  if (!fromHash()) open(byId.get(page.featured) || all[0]);
})();

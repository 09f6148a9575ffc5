/* The viewer of trajectories: a list, and one of them or several side by side. Where they come from is the source's
   business: the report has them in its page, `gog view` asks its server.

   A source has facets(), list(query, offset, limit), position(query, id) and get(id), all of them promises. options:
   whole (the viewer is the page, so every key is its own), featured (what opens first), extra(detail) (what else to show
   of a trajectory: {view, key(event)}), lost(error) (what to do when a source does not answer). */
const KEYS = [
  ['j k', 'next, previous (or ↓ ↑ in the list)'], ['Enter', 'into the trajectory; then ↓ ↑ through its turns'], ['Esc', 'back'], ['/', 'search'],
  ['g', 'its group side by side'], ['c', 'compare: the same question before and after'], ['w', 'all turns as written'], ['?', 'these keys'],
];

function mountViewer(root, source, options = {}) {
  const filters = new Filters(() => refresh());
  const rows = new Rows((offset, limit) => source.list(filters.query(), offset, limit), (id, index) => show(id, { index }));
  const detail = h('div', { class: 'detail', tabindex: -1, 'aria-live': 'polite' });
  const help = h('dialog', { class: 'help', 'aria-label': 'keys' });
  const state = { id: '', index: -1, mode: 't', asked: 0, fit: () => {}, extra: null, row: null };
  let known = null;
  const lost = (error) => { (options.lost || console.error)(error); };

  /* ---- the list */

  async function refresh(keep = false) {
    try {
      const answer = await rows.reload(keep === true);
      if (!answer) return;
      filters.tell(answer.counts, answer.total);
      if (!keep) state.index = -1;
      if (state.id) await place();
      if (!state.id && answer.rows.length) await show(answer.rows[0].id, { index: 0 });
    } catch (error) { lost(error); }
    link();
  }

  /* Finds the open trajectory in the list, if it is in it. */
  async function place() {
    const id = state.id;
    const { index } = await source.position(filters.query(), id);
    if (id !== state.id) return;
    state.index = index === null ? -1 : index;
    rows.show(id, state.index);
  }

  /* ---- what is open */

  async function show(id, { index = -1, mode = state.mode, keepFocus = true } = {}) {
    const asked = (state.asked += 1);
    Object.assign(state, { id, index, mode });
    rows.show(id, index);
    link();
    try {
      const found = await source.get(id);
      if (asked !== state.asked) return;
      await draw(found, asked);
      if (index < 0) await place();
    } catch (error) {
      if (asked === state.asked) detail.replaceChildren(h('p', { class: 'nothing broken' }, `${error.message || error}`));
      lost(error);
    }
    if (!keepFocus) detail.focus();
  }

  async function draw(found, asked) {
    const members = { g: found.group, c: found.others }[state.mode] || [];
    if (state.mode !== 't' && members.length > 1) {
      const load = async (id) => (id === state.id ? found.trajectory : (await source.get(id)).trajectory);
      const drawn = await sidesView(state.mode, members, state.id, load, (id) => show(id, { mode: 't' }));
      if (asked !== state.asked) return;
      put(drawn, null);
      return;
    }
    await known;
    const extra = state.extras && found.trajectory.outcome !== 'unreadable' ? options.extra(found, { refresh: () => refresh(true), next: () => move(1), rows }) : null;
    const drawn = trajectoryView(found.trajectory, state.mode === 't' && found.trajectory.key.startsWith('evaluate') ? found.others : found.group, (id) => show(id), [ways(found), extra && extra.view]);
    if (extra && drawn.scene) extra.attach(drawn.scene);
    put(drawn, extra);
  }

  function put(drawn, extra) {
    const inside = detail.contains(document.activeElement);
    detail.replaceChildren(drawn.view);
    detail.scrollTop = 0;
    state.fit = drawn.fit;
    state.extra = extra;
    state.fit();
    if (inside) detail.focus({ preventScroll: true });
  }

  /* Buttons to what else there is of this question. */
  function ways(found) {
    const group = found.group.length > 1 && h('button', { class: 'way', onclick: () => turn('g') }, `Group of ${found.group.length} `, h('kbd', {}, 'g'));
    const others = found.others.length > 1 && h('button', { class: 'way', onclick: () => turn('c') }, 'Before and after ', h('kbd', {}, 'c'));
    return (group || others) && h('p', { class: 'ways' }, group, others);
  }

  function turn(mode) {
    if (state.id) show(state.id, { index: state.index, mode: state.mode === mode ? 't' : mode });
  }

  /* To the next row; side by side, to the next one that is about something else. */
  async function move(by) {
    if (state.id && state.index < 0) await place(); // a key may come before the list has told where it is
    const same = (row) => state.mode !== 't' && row && state.row && row.questionId === state.row.questionId && row.key === state.row.key && row.step === state.row.step;
    let index = state.index < 0 ? (by > 0 ? 0 : rows.total - 1) : state.index + by;
    state.row = state.index < 0 ? null : await rows.at(state.index);
    let row = await rows.at(index);
    for (let tries = 0; row && same(row) && tries < 2 * CHUNK; tries += 1) row = await rows.at((index += by));
    if (row) await show(row.id, { index });
  }

  /* ---- links */

  let written = '';
  function link() {
    const query = new URLSearchParams(filters.query()).toString();
    written = `#/${state.id ? `${state.mode}/${encodeURIComponent(state.id)}` : ''}${query ? `?${query}` : ''}`;
    if (!options.whole && !state.touched) return;
    try { history.replaceState(null, '', written); } catch { /* a page without a place of its own has no links */ }
  }

  function linked() {
    const found = /^#\/(?:([tgc])\/([^?]*))?(?:\?(.*))?$/.exec(location.hash);
    if (!found) return null;
    let id = '';
    try { id = decodeURIComponent(found[2] || ''); } catch { /* half a sign is no name */ }
    return { mode: found[1] || 't', id, query: Object.fromEntries(new URLSearchParams(found[3] || '')) };
  }

  async function follow() {
    const to = linked();
    if (!to || location.hash === written) return false;
    filters.set(to.query);
    state.touched = true;
    Object.assign(state, { id: to.id, mode: to.mode, index: -1 });
    if (to.id) await show(to.id, { mode: to.mode });
    await refresh();
    if (!options.whole) root.scrollIntoView({ block: 'start' });
    return Boolean(to.id);
  }

  /* ---- keys */

  const inView = () => {
    if (options.whole) return true;
    const { top, bottom } = root.getBoundingClientRect();
    return top < innerHeight * 0.75 && bottom > innerHeight * 0.25;
  };

  function back() {
    if (state.mode !== 't') return turn(state.mode);
    return rows.view.focus();
  }

  /* From turn to turn, once the reader is in a trajectory. */
  function step(by) {
    const turns = [...detail.querySelectorAll('.turn')];
    const here = turns.indexOf(document.activeElement);
    const next = turns[here < 0 ? (by > 0 ? 0 : turns.length - 1) : Math.min(turns.length - 1, Math.max(0, here + by))];
    if (next) next.focus();
  }

  function unfold() {
    const all = [...detail.querySelectorAll('.turn > details')];
    const open = !all.every((each) => each.open);
    for (const each of all) each.open = open;
  }

  function keys(event) {
    const listed = rows.view.contains(event.target);
    const inside = detail.contains(event.target);
    const actions = {
      j: () => move(1), k: () => move(-1), ArrowRight: () => move(1), ArrowLeft: () => move(-1),
      Enter: () => (listed || event.target === document.body ? step(1) : false), Escape: back, '/': () => filters.search.focus(), g: () => turn('g'), c: () => turn('c'), w: unfold,
      '?': () => help.showModal(),
      ...(listed ? { ArrowDown: () => move(1), ArrowUp: () => move(-1) } : {}),
      ...(inside ? { ArrowDown: () => step(1), ArrowUp: () => step(-1) } : {}),
    };
    if (!(event.key in actions)) return false;
    state.touched = true;
    return actions[event.key]() !== false;
  }

  document.addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || help.open || !inView()) return;
    if (event.target instanceof Element && event.target.matches('input, select, textarea')) {
      if (event.key === 'Escape' || (event.key === 'Enter' && event.target === filters.search)) rows.view.focus();
      return;
    }
    if (state.extra && state.extra.key(event)) event.preventDefault();
    else if (keys(event)) event.preventDefault();
  });
  addEventListener('hashchange', follow);
  addEventListener('resize', () => { state.fit(); rows.draw(); });
  root.addEventListener('pointerdown', () => { state.touched = true; });

  /* ---- beginning */

  const explain = (more) => help.replaceChildren(h('h4', {}, 'Keys'), h('dl', {}, [...KEYS, ...more].map(([key, words]) => h('div', {}, h('dt', {}, key.split(' ').map((each) => h('kbd', {}, each))), h('dd', {}, words)))),
    h('form', { method: 'dialog' }, h('button', { class: 'way' }, 'Close')));
  root.append(h('aside', {}, filters.view, rows.view), detail, help);

  /* Asks what there is to filter by, and whether there is more to do than look. */
  async function know() {
    const facets = await source.facets();
    filters.offer(facets);
    explain(facets.reviews ? options.keys : []);
    state.extras = facets.reviews;
  }

  async function first() {
    if (await follow()) return;
    state.id = options.featured || '';
    if (state.id) await show(state.id);
    await refresh();
  }
  known = know();
  Promise.all([known, first()]).catch(lost);

  return {
    /* Takes up what is new in the source. */
    async renew() {
      await Promise.all([know(), refresh(true)]);
    },
  };
}

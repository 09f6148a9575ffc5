/* The bar above the list: what to show, and in which order. Knows nothing of where trajectories come from. */
const TROUBLES = { failure: 'with a tool failure', clean: 'without a tool failure', error: 'with a policy error' };
const DECIDED = { open: 'not reviewed', accept: 'accepted', reject: 'rejected', fix: 'box fixed' };
const SORTS = { place: 'as it ran', reward: 'by reward', seconds: 'by time', calls: 'by tool calls', newest: 'by step' };
const FILTERS = ['stage', 'step', 'policy', 'level', 'outcome', 'trouble', 'behaviour', 'kind', 'least', 'most', 'review', 'text'];

class Filters {
  /* changed() is called after every choice of the reader's. */
  constructor(changed) {
    this.chosen = {};
    this.sort = 'place';
    this.down = false;
    this.changed = changed;
    this.lists = {};
    this.search = this.input('text', { type: 'search', placeholder: 'Search questions, answers, turns', 'aria-label': 'search' });
    this.least = this.input('least', { type: 'number', step: '0.05', placeholder: 'reward from', 'aria-label': 'least reward' });
    this.most = this.input('most', { type: 'number', step: '0.05', placeholder: 'to', 'aria-label': 'most reward' });
    this.chips = h('div', { class: 'chips', role: 'group', 'aria-label': 'outcome' });
    this.selects = h('div', { class: 'selects' });
    this.rest = h('div', { class: 'selects' });
    this.more = h('details', { class: 'more' }, h('summary', {}, 'More filters'), this.rest, h('div', { class: 'range' }, this.least, this.most));
    this.found = h('span', {}, ' ');
    this.clear = h('button', { class: 'clear', onclick: () => { this.set({}); this.changed(); } }, 'show all');
    this.order = h('select', { 'aria-label': 'order', class: 'order', onchange: () => { this.sort = this.order.value; this.changed(); } },
      Object.entries(SORTS).map(([value, words]) => h('option', { value }, words)));
    this.turn = h('button', { class: 'turnround', 'aria-label': 'turn the order round', onclick: () => { this.down = !this.down; this.draw(); this.changed(); } }, '↑');
    this.view = h('div', { class: 'filters' }, this.search, this.chips, this.selects, this.more, h('p', { class: 'count' }, this.found, this.clear, h('span', { class: 'ordering' }, this.order, this.turn)));
  }

  input(name, attributes) {
    let waiting = 0;
    const field = h('input', { ...attributes, oninput: () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => { this.chosen[name] = field.value.trim(); this.changed(); }, name === 'text' ? 120 : 250);
    } });
    return field;
  }

  /* Takes what there is to choose from; what is chosen stays chosen. */
  offer(facets) {
    this.facets = facets;
    const named = (items) => items.map((item) => [item.value, item.name]);
    const steps = facets.steps.filter((item) => !this.chosen.stage || item.stage === this.chosen.stage);
    const numbers = [...new Set(steps.map((item) => item.step))].sort((a, b) => a - b);
    const first = [
      this.select('stage', 'All stages', named(facets.stages)),
      facets.policies.length > 1 && this.select('policy', 'All policies', named(facets.policies)),
      numbers.length > 1 && this.select('step', 'All steps', numbers.map((step) => [String(step), `step ${step}`])),
      this.select('trouble', 'Any trouble', Object.entries(TROUBLES)),
    ];
    const others = [
      this.select('behaviour', 'Any behaviour', Object.entries(BEHAVIOURS)),
      facets.levels.length > 0 && this.select('level', 'Any level', facets.levels.map((level) => [level, `level ${level}`])),
      facets.kinds.length > 1 && this.select('kind', 'Any kind', facets.kinds.map((kind) => [kind, `kind ${kind}`])),
      facets.reviews && this.select('review', 'Any review', Object.entries(DECIDED)),
    ];
    this.selects.replaceChildren(...first.filter(Boolean));
    this.rest.replaceChildren(...others.filter(Boolean));
    this.draw();
  }

  select(name, label, options) {
    const list = h('select', { 'aria-label': label, 'data-filter': name, onchange: () => {
      this.chosen[name] = list.value;
      if (name === 'stage') { this.chosen.step = ''; this.offer(this.facets); }
      this.changed();
    } }, h('option', { value: '' }, label), options.map(([value, words]) => h('option', { value }, words)));
    this.lists[name] = list;
    return list;
  }

  /* Shows how many there are of each outcome, and how many in all. */
  tell(counts, total) {
    const all = Object.entries(OUTCOMES).filter(([outcome]) => counts[outcome] || this.chosen.outcome === outcome);
    this.chips.replaceChildren(...all.map(([outcome, [glyph, words]]) => h('button', {
      class: `chip ${outcome}`, 'data-outcome': outcome, 'aria-pressed': String(this.chosen.outcome === outcome),
      onclick: () => { this.chosen.outcome = this.chosen.outcome === outcome ? '' : outcome; this.changed(); this.chips.querySelector(`[data-outcome="${outcome}"]`)?.focus(); },
    }, `${glyph} ${words} `, h('small', {}, (counts[outcome] || 0).toLocaleString('en')))));
    const set = FILTERS.some((name) => this.chosen[name]);
    this.found.textContent = set ? `${total.toLocaleString('en')} found ` : count(total, 'trajectory').replace('trajectorys', 'trajectories');
    this.clear.hidden = !set;
  }

  /* What a link may carry, and what a source is asked. */
  query() {
    const set = Object.fromEntries(FILTERS.filter((name) => this.chosen[name]).map((name) => [name, this.chosen[name]]));
    return { ...set, ...(this.sort !== 'place' ? { sort: this.sort } : {}), ...(this.down ? { down: '1' } : {}) };
  }

  set(query) {
    this.chosen = Object.fromEntries(FILTERS.map((name) => [name, query[name] || '']));
    this.sort = query.sort in SORTS ? query.sort : 'place';
    this.down = query.down === '1';
    this.search.value = this.chosen.text;
    this.least.value = this.chosen.least;
    this.most.value = this.chosen.most;
    if (this.facets) this.offer(this.facets);
  }

  draw() {
    for (const [name, list] of Object.entries(this.lists)) list.value = this.chosen[name] || '';
    this.order.value = this.sort;
    this.turn.textContent = this.down ? '↓' : '↑';
    this.turn.title = this.down ? 'from the end' : 'from the beginning';
    if (['behaviour', 'level', 'kind', 'review', 'least', 'most'].some((name) => this.chosen[name])) this.more.open = true;
  }
}

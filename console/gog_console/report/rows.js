/* The list: as long as it is, only what is in sight is on the page, fetched by the hundred. */
const ROW_HEIGHT = 62;
const CHUNK = 100;

class Rows {
  /* fetch(offset, limit) -> a promise of {total, counts, rows}; open(id, index) when one is chosen. */
  constructor(fetch, open) {
    this.fetch = fetch;
    this.open = open;
    this.current = '';
    this.inside = h('ol', { class: 'inside' });
    this.heading = h('p', { class: 'group', 'aria-hidden': 'true' });
    this.view = h('div', { class: 'items', tabindex: 0, role: 'region', 'aria-label': 'trajectories' }, this.heading, this.inside);
    this.view.addEventListener('scroll', () => this.draw(), { passive: true });
    this.clear();
  }

  clear() {
    this.chunks = new Map();
    this.total = 0;
    this.age = (this.age || 0) + 1;
  }

  /* Asks anew; where the reader is in the list stays when `keep` is set. */
  async reload(keep = false) {
    const age = (this.age += 1);
    const from = keep ? Math.floor(this.view.scrollTop / ROW_HEIGHT / CHUNK) : 0;
    const answer = await this.fetch(from * CHUNK, CHUNK);
    if (age !== this.age) return null;
    this.chunks = new Map([[from, answer.rows]]);
    this.total = answer.total;
    if (!keep) this.view.scrollTop = 0;
    this.inside.style.height = `${this.total * ROW_HEIGHT}px`;
    this.draw();
    return answer;
  }

  /* The row at an index, fetched if need be; null beyond the ends. */
  async at(index) {
    if (index < 0 || index >= this.total) return null;
    const number = Math.floor(index / CHUNK);
    if (!this.chunks.has(number)) {
      const age = this.age;
      this.chunks.set(number, this.fetch(number * CHUNK, CHUNK).then(({ rows }) => {
        if (age === this.age) { this.chunks.set(number, rows); this.draw(); }
        return rows;
      }, () => { this.chunks.delete(number); return []; }));
    }
    return (await this.chunks.get(number))[index - number * CHUNK] || null;
  }

  known(index) {
    const rows = this.chunks.get(Math.floor(index / CHUNK));
    return Array.isArray(rows) ? rows[index % CHUNK] : undefined;
  }

  draw() {
    const first = Math.max(0, Math.floor(this.view.scrollTop / ROW_HEIGHT) - 4);
    const last = Math.min(this.total, Math.ceil((this.view.scrollTop + this.view.clientHeight) / ROW_HEIGHT) + 4);
    const parts = [];
    for (let index = first; index < last; index += 1) {
      const row = this.known(index);
      if (!row) this.at(index);
      parts.push(this.item(row, index));
    }
    if (this.total === 0) parts.push(h('li', { class: 'nothing' }, 'No trajectory matches.'));
    this.inside.replaceChildren(...parts);
    const top = this.known(Math.floor(this.view.scrollTop / ROW_HEIGHT));
    this.heading.replaceChildren(top ? groupName(top) : '', ' ');
  }

  item(row, index) {
    const place = h('li', {});
    place.style.top = `${index * ROW_HEIGHT}px`;
    if (!row) return place;
    const before = this.known(index - 1);
    const mark = row.key.startsWith('evaluate') ? row.policyName : Number.isFinite(row.advantage) && signed(row.advantage, 2);
    const path = [mark && h('b', {}, mark), ` ${row.way}`];
    const image = row.thumb ? h('img', { src: row.thumb, alt: '', class: 'crisp' }) : h('span', { class: 'missing' }, '?');
    image.addEventListener('error', () => image.replaceWith(h('span', { class: 'missing' }, '?')));
    const begins = before && groupName(before) !== groupName(row) && 'begins';
    place.append(h('button', { class: `item ${row.outcome} ${row.id === this.current ? 'here' : ''} ${begins || ''}`, 'data-id': row.id, tabindex: -1, onclick: () => this.open(row.id, index), 'aria-current': row.id === this.current && 'true' },
      image,
      h('span', { class: 'words' }, h('span', { class: 'question' }, row.question), h('span', { class: 'path' }, path)),
      h('span', { class: 'marks' }, h('b', { class: 'glyph', title: OUTCOMES[row.outcome][1] }, OUTCOMES[row.outcome][0]),
        row.failures > 0 && h('b', { class: 'glyph failing', title: 'tool failure' }, '!'),
        row.errors > 0 && h('b', { class: 'glyph erring', title: 'policy error' }, '?'),
        row.decision && h('b', { class: `glyph decided ${row.decision}`, title: DECIDED[row.decision] }, { accept: 'A', reject: 'R', fix: 'F' }[row.decision]))));
    return place;
  }

  /* Marks a row and brings it into sight. */
  show(id, index) {
    this.current = id;
    const top = index * ROW_HEIGHT;
    if (index >= 0 && top < this.view.scrollTop) this.view.scrollTop = top;
    else if (index >= 0 && top + ROW_HEIGHT > this.view.scrollTop + this.view.clientHeight - 28) this.view.scrollTop = top + ROW_HEIGHT - this.view.clientHeight + 28;
    this.draw();
  }
}

/* What a row stands under: an evaluation as a whole, a step of a training, or its stage. */
function groupName(row) {
  if (row.key.startsWith('evaluate')) return row.stage;
  return row.step ? `${row.stage}: step ${row.step}` : row.stage;
}

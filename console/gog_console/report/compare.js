/* Trajectories side by side: a group with its advantages, or one question before and after the training. */
const MOST_SIDES = 8;
/* Of an image, in pixels of the page: what matters side by side is what differs below it. */
const WIDEST_SIDE = 336;

/* kind: 'g' or 'c'; members: as the list has them; load(id) -> a promise of one trajectory; go(id) opens one alone. */
async function sidesView(kind, members, current, load, go) {
  const shown = new Set(firstSides(kind, members, current));
  const loaded = new Map();
  const columns = h('div', { class: 'sides' });
  const chips = h('p', { class: 'relatives' });
  const looks = [];
  /* All images alike: what differs between them is what is drawn on them. */
  const fit = () => {
    const width = Math.min(WIDEST_SIDE, ...looks.map(({ look }) => look.clientWidth));
    for (const { scene } of looks) scene.fit(width);
  };

  async function draw() {
    const wanted = members.filter((member) => shown.has(member.id));
    await Promise.all(wanted.filter(({ id }) => !loaded.has(id)).map(async ({ id }) => loaded.set(id, await load(id))));
    const trajectories = wanted.map(({ id }) => loaded.get(id)).filter(Boolean);
    const widest = Math.max(...trajectories.map((trajectory) => Math.abs(trajectory.advantage || 0)), 1e-9);
    looks.length = 0;
    columns.replaceChildren(...trajectories.map((trajectory) => side(kind, trajectory, widest, current, go, looks)));
    chips.replaceChildren(...members.map((member) => h('button', {
      class: `chip ${member.outcome} ${shown.has(member.id) ? 'here' : ''}`, 'aria-pressed': String(shown.has(member.id)), onclick: () => toggle(member.id),
    }, `${OUTCOMES[member.outcome][0]} ${sideName(kind, member)}`)));
    fit();
  }

  function toggle(id) {
    if (shown.has(id) && shown.size > 1) shown.delete(id);
    else if (shown.size < MOST_SIDES) shown.add(id);
    return draw();
  }

  await draw();
  const first = members.find(({ id }) => id === current) || members[0];
  const title = kind === 'g' ? `The group of ${members.length}` : 'The same question, before and after';
  const view = h('article', { class: 'beside' }, h('header', {}, h('p', { class: 'where' }, title), h('h3', {}, first.question)), chips, columns);
  return { view, fit };
}

/* Which are shown at first: a whole group; of a comparison SFT and GRPO, or else this one and the last. */
function firstSides(kind, members, current) {
  if (kind === 'g') return members.slice(0, MOST_SIDES).map(({ id }) => id);
  const of = (policy) => members.filter((member) => member.policy === policy);
  const here = members.find(({ id }) => id === current);
  const pair = [of('sft')[0], of('grpo').includes(here) ? here : of('grpo').at(-1)].filter(Boolean);
  if (pair.length === 2) return pair.map(({ id }) => id);
  return [...new Set([here || members[0], members.at(-1)])].map(({ id }) => id);
}

function sideName(kind, member) {
  if (kind === 'g') return `sample ${(member.sample || 0) + 1}`;
  if (member.key.startsWith('evaluate')) return member.policyName;
  return [member.stage, member.step && `step ${member.step}`].filter(Boolean).join(' ');
}

function side(kind, trajectory, widest, current, go, looks) {
  if (trajectory.outcome === 'unreadable') return h('section', { class: 'side' }, unreadable(trajectory));
  const scene = new Scene(trajectory);
  const look = h('div', { class: 'look' }, scene.frame, scene.caption);
  looks.push({ look, scene });
  const [glyph, words] = OUTCOMES[trajectory.outcome];
  return h(
    'section',
    { class: `side ${trajectory.id === current ? 'here' : ''}`, 'data-id': trajectory.id },
    h('header', {},
      h('h4', {}, h('button', { class: 'clear', onclick: () => go(trajectory.id), title: 'open alone' }, sideName(kind, trajectory)), h('span', { class: `outcome ${trajectory.outcome}` }, `${glyph} ${words}`)),
      h('p', { class: 'verdict' }, h('span', {}, 'answer ', h('b', {}, trajectory.answer === undefined ? '–' : trajectory.answer)), h('span', {}, 'accepted ', h('b', {}, (trajectory.answers || []).join(' / ')))),
      h('p', { class: 'verdict small' }, trajectory.reward ? rewardParts(trajectory) : h('span', {}, 'no reward')),
      trajectory.advantage !== undefined && advantageBar(trajectory.advantage, widest)),
    look,
    turnList(trajectory, scene),
  );
}

/* To the right of the middle: better than its group; to the left: worse. */
function advantageBar(value, widest) {
  const bar = h('i', { class: value < 0 ? 'worse' : 'better' });
  bar.style.width = `${(50 * Math.abs(value)) / widest}%`;
  bar.style[value < 0 ? 'right' : 'left'] = '50%';
  return h('div', { class: 'advantage', role: 'img', 'aria-label': `advantage ${signed(value, 2)}`, title: `advantage ${signed(value, 2)}` }, bar);
}

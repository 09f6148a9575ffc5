/* Draws one trajectory: the image with its boxes on the left, turn by turn on the right. A trajectory brings its own
   images: `images`, by content hash, each with a source and the size of the original. */
const OUTCOMES = {
  correct: ['✓', 'Correct'],
  wrong: ['✗', 'Wrong'],
  excluded: ['⊘', 'Excluded'],
  unjudged: ['·', 'Not judged'],
  unreadable: ['!', 'Unreadable'],
};
const BEHAVIOURS = { none: 'no search', single: 'one kind', mixed: 'several kinds' };
const STOPS = {
  answer: 'answered',
  format: 'a turn without an action',
  max_turns: 'too many turns',
  max_calls: 'too many tool calls',
  max_tokens: 'too many tokens',
  max_turn_tokens: 'a turn cut off',
};
/* imageSearch -> image search */
const toolTitle = (tool) => tool.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);

/* ---- the image */

class Scene {
  constructor(trajectory) {
    this.trajectory = trajectory;
    const image = trajectory.images[trajectory.image];
    this.frame = h('div', { class: 'scene' });
    this.overlay = h('div', { class: 'overlay' });
    this.shown = -1;
    this.caption = h('p', { class: 'caption' });
    if (!image || !image.src) {
      const none = trajectory.image ? 'The image is missing from the archive.' : 'No image is recorded.';
      this.frame.append(h('p', { class: 'nothing broken' }, none));
      return;
    }
    this.size = image;
    const small = Math.max(image.w, image.h) <= 256;
    const element = h('img', { src: image.src, alt: 'the image asked about', class: small ? 'crisp' : null, draggable: 'false' });
    element.addEventListener('error', () => this.frame.replaceChildren(h('p', { class: 'nothing broken' }, 'The image is torn.')));
    this.frame.append(element, this.overlay);
    this.frame.style.aspectRatio = `${image.w} / ${image.h}`;
  }

  /* Each pixel of a small image takes a whole number of the screen's: 112 at 448 is crisp, at 460 it is not. */
  fit(width) {
    if (!this.size) return;
    const dots = window.devicePixelRatio || 1;
    const times = Math.floor((width / this.size.w) * dots) / dots;
    const whole = this.size.w <= 256 && times >= 1 ? times * this.size.w : Math.min(width, Math.max(this.size.w, 320));
    const tall = 520 * (this.size.w / this.size.h);
    this.frame.style.width = `${Math.min(whole, Math.max(tall, 160))}px`;
  }

  /* Shows the boxes that were on offer at a turn. */
  show(number) {
    const turns = this.trajectory.turns;
    const places = groundsOf(turns, number);
    this.shown = number;
    this.overlay.replaceChildren();
    if (!this.size) return;
    this.frame.classList.toggle('glanced', turns[number] !== undefined && turns[number].action === 'glance');
    if (this.trajectory.region) this.overlay.append(this.box(this.trajectory.region, 'region', ''));
    if (places.length === 0) return this.say(this.trajectory.region ? 'No candidates were asked for.' : '');
    for (const place of places) {
      const chosen = chosenOf(turns, place);
      for (const candidate of turns[place].seen.candidates) {
        if (candidate.elsewhere) continue; // a part of an image that a search returned
        const style = chosen.includes(candidate.n) ? 'candidate chosen' : 'candidate';
        this.overlay.append(this.box(candidate.box, style, `#${candidate.n}`));
      }
    }
    const offers = places.map((place) => `${count(turns[place].seen.candidates.length, 'candidate')} for “${turns[place].argument || ''}” in turn ${place + 1}`);
    this.say(offers.join('; '));
  }

  say(text) { this.caption.textContent = text; }

  box([left, top, right, bottom], style, label) {
    const { w, h: tall } = this.size;
    const box = h('div', { class: `box ${style}` }, label && h('span', {}, label));
    box.style.left = `${(100 * left) / w}%`;
    box.style.top = `${(100 * top) / tall}%`;
    box.style.width = `${(100 * (right - left)) / w}%`;
    box.style.height = `${(100 * (bottom - top)) / tall}%`;
    if (top / tall < 0.08) box.classList.add('low');
    return box;
  }
}

const candidatesOf = (turn) => (turn.seen && turn.seen.candidates) || [];

/* Index of the grounding whose candidate a turn selects by its number, -1 when no candidate has it. The newest one counts:
   the numbers of most models continue in the next grounding, those of the tiny one begin at 1 in each. */
function offering(turns, number, selected) {
  return turns.findLastIndex((turn, index) => index < number && candidatesOf(turn).some(({ n }) => n === selected));
}

/* Indices of the groundings whose candidates are shown with a turn: those that it selects from, else the newest. */
function groundsOf(turns, number) {
  const selected = ((turns[number] || {}).selected || []).map((each) => offering(turns, number, each));
  const newest = turns.findLastIndex((turn, index) => index <= number && candidatesOf(turn).length > 0);
  const found = selected.some((place) => place >= 0) ? selected : [newest];
  return [...new Set(found)].filter((place) => place >= 0).sort((one, other) => one - other);
}

/* Numbers of a grounding's candidates that later turns selected. */
function chosenOf(turns, place) {
  return turns.flatMap((turn, number) => (turn.selected || []).filter((each) => offering(turns, number, each) === place));
}

/* ---- the turns */

const ACTIONS = {
  glance: () => [h('b', {}, 'Glance'), h('span', { class: 'how' }, 'searches the whole image')],
  ground: (turn) => [h('b', {}, 'Ground'), quoted(turn.argument), h('span', { class: 'how' }, turn.within ? `asks for candidates inside #${turn.within}` : 'asks for candidates')],
  gaze: (turn) => [h('b', {}, 'Gaze'), h('q', {}, turn.selected.map((number) => `#${number}`).join(', ')), h('span', { class: 'how' }, 'searches the chosen')],
  text: (turn) => [h('b', {}, 'Text search'), quoted(turn.argument)],
  answer: (turn) => [h('b', {}, 'Answer'), quoted(turn.argument)],
  call: (turn) => [h('b', {}, 'Call'), quoted(turn.argument)],
  none: () => [h('b', {}, 'No action')],
};
/* A tool that was added to the catalogue needs no row here. */
const described = (turn) => Object.hasOwn(ACTIONS, turn.action)
  ? ACTIONS[turn.action](turn)
  : [h('b', {}, turn.action[0].toUpperCase() + turn.action.slice(1).replaceAll('_', ' ')), quoted(turn.argument)];
const quoted = (text) => h('q', {}, text === undefined ? '' : text);

function turnCard(trajectory, turn, number, scene) {
  const wrong = turn.wellFormed === false;
  const failed = turn.seen && turn.seen.failures;
  const look = () => scene.show(number);
  return h(
    'li',
    { class: `turn ${turn.action} ${wrong ? 'malformed' : ''} ${failed ? 'failed' : ''}`, tabindex: 0, onpointerenter: look, onfocus: look },
    h('span', { class: 'no' }, number + 1),
    h('div', { class: 'does' }, described(turn), h('span', { class: 'meta' }, turnMeta(turn))),
    turn.reasoning && h('p', { class: 'thinks' }, turn.reasoning),
    wrong && h('p', { class: 'error' }, h('b', {}, 'Policy error '), turn.error || 'badly formed'),
    turn.seen && seenBlock(trajectory, turn, number),
    confidence(turn),
    h('details', {}, h('summary', {}, 'as written'), h('pre', {}, turn.pieces ? coloured(turn) : tagged(turn.raw || ''))),
  );
}

const turnMeta = (turn) => [turn.tokens && count(turn.tokens, 'token'), turn.seconds && seconds(turn.seconds)].filter(Boolean).join(' · ');

function seenBlock(trajectory, turn, number) {
  const seen = turn.seen;
  const meta = [seen.attempts && count(seen.attempts, 'attempt'), seen.cached ? 'from cache' : seen.seconds > 0 && seconds(seen.seconds)];
  return h(
    'div',
    { class: 'seen' },
    h('p', { class: 'tool' }, h('b', {}, seen.tool ? toolTitle(seen.tool) : 'agent'), h('span', { class: 'meta' }, meta.filter(Boolean).join(' · '))),
    (seen.failures || []).map((failure) => h('p', { class: 'failure' }, h('b', {}, `Tool failure: ${failure.kind} `), failure.message || '')),
    seen.candidates && thumbnails(trajectory, number),
    turn.action === 'gaze' && searched(trajectory, number),
    (seen.results || []).length > 0 && h('ol', { class: 'found' }, seen.results.map((found) => result(trajectory, found))),
    !seen.candidates && !seen.results && !seen.failures && h('p', { class: 'thinks' }, seen.text || 'nothing came back'),
    seen.note && h('p', { class: 'thinks' }, seen.note),
    seen.text && h('details', {}, h('summary', {}, 'as the policy read it'), h('pre', {}, tagged(seen.text))),
  );
}

function result(trajectory, found) {
  const image = found.thumbnail && trajectory.images[found.thumbnail];
  return h('li', {}, image && image.src && h('img', { src: image.src, alt: '', class: 'shown' }), h('b', {}, found.title || ''), found.url && h('span', { class: 'url' }, found.url), found.text && h('span', { class: 'text' }, found.text));
}

function thumbnails(trajectory, place) {
  const seen = trajectory.turns[place].seen;
  const chosen = chosenOf(trajectory.turns, place);
  return h('div', { class: 'thumbs' }, seen.candidates.map((candidate) => thumbnail(trajectory, candidate, chosen.includes(candidate.n), seen.right === candidate.n)));
}

function searched(trajectory, number) {
  const { turns } = trajectory;
  const shown = (turns[number].selected || []).map((selected) => {
    const ground = turns[offering(turns, number, selected)];
    return ground && thumbnail(trajectory, candidatesOf(ground).find(({ n }) => n === selected), true, ground.seen.right === selected);
  });
  return h('div', { class: 'thumbs' }, shown.filter(Boolean));
}

function thumbnail(trajectory, candidate, chosen, right) {
  const image = trajectory.images[candidate.crop];
  const says = [chosen && 'chosen', right && 'right'].filter(Boolean).join(' · ');
  const crisp = image && Math.max(image.w, image.h) <= 128 ? 'crisp' : null;
  return h(
    'figure',
    { class: `thumb ${chosen ? 'chosen' : ''} ${right ? 'right' : ''}`, title: candidate.label || null },
    image && image.src ? h('img', { src: image.src, alt: `candidate ${candidate.n}`, class: crisp }) : h('div', { class: 'missing' }, '?'),
    h('figcaption', {}, h('b', {}, `#${candidate.n}`), candidate.score > 0 && ` ${candidate.score.toFixed(2)}`, says && h('small', {}, says)),
  );
}

/* Text with its control tags tinted, so that one that a tool slipped in is seen. */
const TAGS = new RegExp(`${CONTROL_TAGS.join('|')}|<\\|[^|<>]{1,40}\\|>`, 'g');
function tagged(text) {
  const parts = [];
  let last = 0;
  for (const found of text.matchAll(TAGS)) {
    parts.push(text.slice(last, found.index), h('span', { class: 'tag' }, found[0]));
    last = found.index + found[0].length;
  }
  return [...parts, text.slice(last)];
}

const tint = (value) => `p${[0.9, 0.6, 0.3, 0.1].filter((share) => Math.exp(value) < share).length}`;
const surely = (value) => `${value.toFixed(2)}, ${(100 * Math.exp(value)).toFixed(value > -0.1 ? 1 : 0)} %`.replace('-', '−');

/* The words of a turn, each token tinted by how sure the sampler was of it. */
const coloured = (turn) => turn.pieces.map((piece, place) => piece && h('span', { class: `token ${tint(turn.logprobs[place])}`, title: `log-probability ${surely(turn.logprobs[place])}` }, piece));

/* One cell per token, tinted the same way. */
function confidence(turn) {
  const values = turn.logprobs;
  if (!values || values.length === 0) return null;
  const lowest = Math.min(...values);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return h(
    'div',
    { class: 'sure', title: `log-probability of each sampled token: mean ${mean.toFixed(2)}, lowest ${lowest.toFixed(2)}`.replaceAll('-', '−') },
    values.map((value) => h('i', { class: tint(value) })),
  );
}

/* ---- the whole */

/* A trajectory as {view, scene, fit}; `more` goes under its heading, related are those of its group. */
function trajectoryView(trajectory, related, go, more = null) {
  if (trajectory.outcome === 'unreadable') return { view: unreadable(trajectory), scene: null, fit: () => {} };
  const scene = new Scene(trajectory);
  const turns = turnList(trajectory, scene);
  const look = h('div', { class: 'look' }, scene.frame, scene.caption, key(trajectory), facts(trajectory));
  const view = h('article', {}, heading(trajectory), more, relatives(trajectory, related, go), h('div', { class: 'body' }, look, turns));
  return { view, scene, fit: () => scene.fit(look.clientWidth) };
}

function turnList(trajectory, scene) {
  const last = trajectory.turns.length - 1;
  const turns = h('ol', { class: 'turns' }, trajectory.turns.map((turn, number) => turnCard(trajectory, turn, number, scene)));
  turns.addEventListener('pointerleave', () => scene.show(last));
  scene.show(last);
  return turns;
}

const unreadable = (trajectory) => h(
  'article',
  {},
  h('header', {}, h('p', { class: 'where' }, trajectory.stage), h('h3', {}, 'This trajectory cannot be read'), h('p', { class: 'failure' }, trajectory.problem)),
  trajectory.raw ? h('pre', { class: 'rawline' }, trajectory.raw) : h('p', { class: 'nothing' }, 'Nothing of it is left to show.'),
);

function heading(trajectory) {
  const [glyph, words] = OUTCOMES[trajectory.outcome];
  const where = [trajectory.stage, trajectory.step && `step ${trajectory.step}`, trajectory.policyName, trajectory.kind && `kind ${trajectory.kind}`, trajectory.level && `level ${trajectory.level}`];
  return h(
    'header',
    {},
    h('p', { class: 'where' }, [...new Set(where.filter(Boolean))].join(' · '), h('a', { href: `#/t/${encodeURIComponent(trajectory.id)}`, title: 'link to this trajectory' }, '#')),
    h('h3', {}, trajectory.question),
    h('div', { class: 'verdict' },
      h('span', { class: `outcome ${trajectory.outcome}` }, `${glyph} ${words}`),
      h('span', {}, 'answer ', h('b', {}, trajectory.answer === undefined ? '–' : trajectory.answer)),
      h('span', {}, 'accepted ', h('b', {}, (trajectory.answers || []).join(' / '))),
      trajectory.reward && rewardParts(trajectory)),
    trajectory.excluded && h('p', { class: 'failure' }, h('b', {}, 'Excluded from learning: '), trajectory.excluded),
    trajectory.treatment && h('p', { class: 'failure' }, h('b', {}, 'Learned differently: '), trajectory.treatment),
    trajectory.prompt && h('details', { class: 'prompt' }, h('summary', {}, 'the prompt'), h('pre', {}, tagged(trajectory.prompt))),
  );
}

function rewardParts(trajectory) {
  const { accuracy, format, total } = trajectory.reward;
  const show = (value) => (value === null || value === undefined ? '–' : Number(value.toFixed(3)));
  const parts = format === undefined ? '' : ` = accuracy ${show(accuracy)}, format ${show(format)}`; // undefined: not gog's reward
  return h('span', { class: 'reward' }, 'reward ', h('b', {}, show(total)), parts,
    trajectory.advantage !== undefined && ` · advantage ${signed(trajectory.advantage, 2)}`);
}

function relatives(trajectory, related, go) {
  if (!related || related.length < 2) return null;
  const evaluated = trajectory.key.startsWith('evaluate');
  const title = evaluated ? 'Same question, by policy' : 'Same group';
  const name = (other) => (evaluated ? other.policyName : `sample ${(other.sample || 0) + 1}`);
  return h('p', { class: 'relatives' }, `${title}: `, related.map((other) => h('button', {
    class: `chip ${other.outcome} ${other.id === trajectory.id ? 'here' : ''}`, onclick: () => go(other.id), 'aria-current': other.id === trajectory.id && 'true',
  }, `${OUTCOMES[other.outcome][0]} ${name(other)}`)));
}

function key(trajectory) {
  const offered = trajectory.turns.some((turn) => turn.seen && turn.seen.candidates);
  return h('p', { class: 'key-boxes' },
    offered && h('span', {}, h('i', { class: 'chosen' }), 'chosen'),
    offered && h('span', {}, h('i', { class: 'candidate' }), 'candidate'),
    trajectory.region && h('span', {}, h('i', { class: 'region' }), 'marked region (the policy never sees it)'));
}

function facts(trajectory) {
  const chose = { true: 'yes', false: 'no' }[String(trajectory.choseRight)];
  const rows = [['Behaviour', BEHAVIOURS[trajectory.behaviour]], ['Tool calls', trajectory.toolCalls || '0'], ['Right candidate', chose], ['Ended by', STOPS[trajectory.stop]], ['Time', trajectory.seconds && seconds(trajectory.seconds)], ['Question', trajectory.questionId]];
  rows.push(...Object.entries(trajectory.marks || {})); // further figures of another project's row
  return h('dl', { class: 'facts' }, rows.filter(([, value]) => value).map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
}

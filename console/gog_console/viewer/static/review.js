/* The review of a demonstration: accept, reject, draw the crop anew, note. What is decided is on the disk before it shows. */
const REVIEW_KEYS = [['a', 'accept, and on to the next'], ['x', 'reject, and on to the next'], ['b', 'fix the box: drag, or arrows (Shift: its lower right corner); Enter keeps it'], ['n', 'note'], ['u', 'undo']];
/* Pixels of the image: what an arrow moves by, and the least side of a box. */
const STEP = 2;
const SMALLEST = 3;

function reviewBar(found, list) {
  const id = found.trajectory.id;
  let review = found.review;
  let scene = null;
  let draft = null;
  const said = h('p', { class: 'said', role: 'status' });
  const note = h('input', { placeholder: 'Note', 'aria-label': 'note', maxlength: 4000, value: review ? review.note : null });
  const button = (decision, words, key, act) => h('button', { class: `way ${decision}`, 'data-decision': decision, onclick: act }, words, ' ', h('kbd', {}, key));
  const buttons = [
    button('accept', 'Accept', 'a', () => decide('accept', {}, true)),
    button('reject', 'Reject', 'x', () => decide('reject', {}, true)),
    button('fix', 'Fix box', 'b', () => begin()),
    button('undo', 'Undo', 'u', () => decide('undo')),
  ];
  const view = h('div', { class: 'review', role: 'group', 'aria-label': 'review' }, buttons, note, said);

  function draw() {
    for (const each of buttons) each.setAttribute('aria-pressed', String(Boolean(review) && review.decision === each.dataset.decision));
    buttons[3].hidden = !review;
    if (review) say(`${DECIDED[review.decision] || 'noted'}${review.box ? ` to ${review.box.map(Math.round).join(', ')}` : ''} · ${review.time.replace('T', ' ').slice(0, 19)}`);
    else say('not reviewed');
    if (!scene || !scene.size) return;
    for (const old of scene.frame.querySelectorAll('.fixed')) old.remove();
    if (review && review.box && !draft) scene.frame.append(scene.box(review.box, 'fixed', 'fixed'));
  }

  function say(words, failed = false) {
    said.textContent = words;
    said.classList.toggle('failed', failed);
  }

  async function decide(decision, fields = {}, onwards = false) {
    try {
      const answer = await fetch('/api/review', {
        method: 'POST', credentials: 'same-origin', headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ trajectory: id, decision, note: decision === 'undo' ? '' : note.value.trim(), ...fields }),
      });
      const body = await answer.json();
      if (!answer.ok) return say(`Not kept: ${body.error}`, true);
      review = body.review;
      draw();
      document.dispatchEvent(new Event('reviewed'));
      if (onwards) await list.next();
      await list.refresh();
    } catch {
      say('Not kept: the viewer does not answer. Is `gog view` still running?', true);
    }
    return undefined;
  }

  note.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter') return;
    event.preventDefault();
    note.blur();
    if (note.value.trim()) decide('note');
  });

  /* ---- the box */

  function begin() {
    if (!scene || !scene.size) return say('There is no image to draw on.', true);
    const { w, h: tall } = scene.size;
    draft = (review && review.box) || chosenBox() || [w / 4, tall / 4, (3 * w) / 4, (3 * tall) / 4];
    scene.frame.classList.add('drawing');
    say('Drag on the image, or move it with the arrows; Enter keeps, Esc leaves it.');
    redraw();
    return undefined;
  }

  function chosenBox() {
    const turns = found.trajectory.turns;
    const gaze = turns.findLastIndex((turn) => (turn.selected || []).length > 0);
    const place = groundsOf(turns, gaze < 0 ? turns.length - 1 : gaze)[0];
    if (place === undefined) return null;
    const number = chosenOf(turns, place)[0];
    const candidate = candidatesOf(turns[place]).find(({ n }) => n === number) || candidatesOf(turns[place])[0];
    return candidate.box;
  }

  function redraw() {
    for (const old of scene.frame.querySelectorAll('.draft, .fixed')) old.remove();
    scene.frame.append(scene.box(draft, 'draft', 'new'));
  }

  function end() {
    draft = null;
    scene.frame.classList.remove('drawing');
    for (const old of scene.frame.querySelectorAll('.draft')) old.remove();
    draw();
  }

  function nudge(key, corner) {
    const [x, y] = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[key];
    const { w, h: tall } = scene.size;
    const [left, top, right, bottom] = draft;
    if (corner) draft = [left, top, Math.min(w, Math.max(left + SMALLEST, right + x)), Math.min(tall, Math.max(top + SMALLEST, bottom + y))];
    else {
      const dx = Math.min(w - right, Math.max(-left, x));
      const dy = Math.min(tall - bottom, Math.max(-top, y));
      draft = [left + dx, top + dy, right + dx, bottom + dy];
    }
    redraw();
  }

  function pixel(event) {
    const frame = scene.overlay.getBoundingClientRect();
    const within = (value, most) => Math.min(most, Math.max(0, value));
    return [within(((event.clientX - frame.left) / frame.width) * scene.size.w, scene.size.w), within(((event.clientY - frame.top) / frame.height) * scene.size.h, scene.size.h)];
  }

  function attach(given) {
    scene = given;
    let from = null;
    scene.frame.addEventListener('pointerdown', (event) => {
      if (!draft) return;
      from = pixel(event);
      scene.frame.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    scene.frame.addEventListener('pointermove', (event) => {
      if (!from) return;
      const to = pixel(event);
      draft = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])];
      redraw();
    });
    scene.frame.addEventListener('pointerup', () => { from = null; });
    draw();
  }

  function keep() {
    const box = draft.map((value) => Math.round(value * 10) / 10);
    if (box[2] - box[0] < SMALLEST || box[3] - box[1] < SMALLEST) return say('This box is too small.', true);
    end();
    return decide('fix', { box });
  }

  function key(event) {
    if (draft) {
      if (event.key === 'Enter') keep();
      else if (event.key === 'Escape') end();
      else if (event.key.startsWith('Arrow')) nudge(event.key, event.shiftKey);
      else return false;
      return true;
    }
    const actions = { a: () => decide('accept', {}, true), x: () => decide('reject', {}, true), b: begin, n: () => note.focus(), u: () => review && decide('undo') };
    if (!(event.key in actions)) return false;
    actions[event.key]();
    return true;
  }

  return { view, attach, key };
}

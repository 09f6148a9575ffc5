/* The page of `gog view`: shows the state of the run and the index, polls while either is incomplete, and holds the viewer. */
(() => {
  const AGAIN = { busy: 700, going: 5000, still: 15000 };
  const top = document.getElementById('top');
  const state = { seen: '' };
  const viewer = mountViewer(document.getElementById('viewer'), serverSource, { whole: true, lost, extra: reviewBar, keys: REVIEW_KEYS });

  function problems(run) {
    if (run.problems.length === 0) return null;
    return h('details', {}, h('summary', {}, count(run.problems.length, 'problem')), h('ul', {}, run.problems.map(({ where, what }) => h('li', {}, h('b', {}, where), `: ${what}`))));
  }

  function tell(run) {
    document.title = `${run.name} – trajectories`;
    const style = { Complete: 'good', Failed: 'bad', Suspended: 'still' }[run.state.split(':')[0]] || '';
    const open = top.querySelector('details')?.open;
    top.replaceChildren(
      h('h1', {}, run.name),
      run.state ? h('span', { class: `pill ${style}` }, run.state) : '',
      ...run.progress.map((words) => h('span', {}, words)),
      h('span', { class: 'address' }, run.address),
      h('span', { class: 'right' },
        run.busy && h('span', {}, h('progress', { value: run.share, max: 1, 'aria-label': 'indexing' }), ` indexing ${run.total.toLocaleString('en')}, archive ${Math.min(run.archives, run.done + 1)} of ${run.archives}`),
        !run.busy && `${run.total.toLocaleString('en')} in ${count(run.archives, 'archive')}`,
        run.reviews && h('span', { title: run.reviews.file }, count(run.reviews.count, 'review')),
        problems(run)),
    );
    if (open && top.querySelector('details')) top.querySelector('details').open = true;
  }

  function lost(error) {
    if (error.answered) return;
    top.replaceChildren(h('span', { class: 'offline' }, 'The viewer does not answer. Is `gog view` still running?'));
  }

  async function look() {
    let wait = AGAIN.still;
    try {
      const run = await request('/api/run');
      tell(run);
      const seen = `${run.total}|${run.archives}`;
      if (state.seen && seen !== state.seen) await viewer.renew();
      state.seen = seen;
      if (run.total === 0) nothing(run);
      if (run.busy) wait = AGAIN.busy;
      else if (!['Complete', 'Failed'].includes(run.state.split(':')[0])) wait = AGAIN.going;
    } catch (error) { lost(error); }
    setTimeout(look, wait);
  }

  function nothing(run) {
    const words = run.busy ? 'The first trajectories are being indexed …' : run.state && run.state !== 'Complete' ? 'No trajectories yet: the run has not committed any.' : 'No trajectories are recorded here.';
    document.querySelector('.detail').replaceChildren(h('p', { class: 'nothing' }, words), h('ul', {}, run.problems.map(({ where, what }) => h('li', {}, `${where}: ${what}`))));
  }

  document.addEventListener('reviewed', () => request('/api/run').then(tell, lost));
  look();
})();

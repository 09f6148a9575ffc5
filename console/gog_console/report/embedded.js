/* The report's own trajectories as a source of the viewer: everything is in the page already. */
(() => {
  const root = document.getElementById('viewer');
  if (!root) return;
  const all = page.trajectories;
  const byId = new Map(all.map((trajectory) => [trajectory.id, trajectory]));
  const related = new Map();
  const words = ({ raw, error, seen = {} }) => [raw, error, seen.text, ...(seen.failures || []).flatMap(Object.values), ...(seen.results || []).flatMap(Object.values)];
  const evaluated = (trajectory) => trajectory.key.startsWith('evaluate');
  all.forEach((trajectory, place) => {
    const name = `${trajectory.key}|${evaluated(trajectory) ? '' : trajectory.step}|${trajectory.questionId}`;
    related.set(name, [...(related.get(name) || []), trajectory]);
    const image = page.images[trajectory.image];
    Object.assign(trajectory, {
      place,
      images: page.images,
      thumb: image ? image.src : '',
      way: trajectory.turns.map((turn) => turn.action).join(' › '),
      relatives: () => related.get(name),
      text: [trajectory.question, trajectory.answer, ...(trajectory.answers || []), trajectory.kind, trajectory.questionId,
        trajectory.excluded, ...trajectory.turns.flatMap(words)].join(' ').toLowerCase(),
    });
  });

  const reward = (trajectory) => (trajectory.reward ? trajectory.reward.total : null);
  const troubles = { failure: (each) => each.failures > 0, clean: (each) => !each.failures, error: (each) => each.errors > 0 };
  const tests = {
    stage: (each, value) => each.key === value,
    step: (each, value) => String(each.step) === value,
    policy: (each, value) => each.policy === value,
    level: (each, value) => each.level === value,
    outcome: (each, value) => each.outcome === value,
    trouble: (each, value) => value in troubles && troubles[value](each),
    behaviour: (each, value) => each.behaviour === value,
    kind: (each, value) => each.kind === value,
    least: (each, value) => reward(each) !== null && reward(each) >= Number(value),
    most: (each, value) => reward(each) !== null && reward(each) <= Number(value),
    text: (each, value) => value.toLowerCase().split(/\s+/).every((word) => each.text.includes(word)),
  };
  const orders = {
    place: (each) => each.place,
    reward: (each) => (reward(each) === null ? -1e9 : reward(each)),
    seconds: (each) => each.seconds || 0,
    calls: (each) => each.toolCalls || 0,
    newest: (each) => each.step || 0,
  };
  const matching = (query, but = '') => all.filter((each) => Object.entries(tests).every(([name, test]) => name === but || !query[name] || test(each, query[name])));
  const tally = (values) => values.reduce((sums, value) => ({ ...sums, [value]: (sums[value] || 0) + 1 }), {});
  const unique = (values) => [...new Set(values.filter(Boolean))];

  function sorted(query) {
    const by = orders[query.sort || 'place'];
    const way = query.down === '1' ? -1 : 1;
    return matching(query).sort((a, b) => way * (by(a) - by(b) || a.place - b.place));
  }

  const named = (of, name) => unique(all.map(of)).map((value) => ({ value, name: name(all.find((each) => of(each) === value)) }));
  const source = {
    async facets() {
      return {
        stages: named((each) => each.key, (each) => each.stage),
        policies: named((each) => each.policy, (each) => each.policyName),
        steps: all.filter((each) => each.step).map((each) => ({ stage: each.key, step: each.step })),
        levels: unique(all.map((each) => each.level)).sort(),
        kinds: unique(all.map((each) => each.kind)).sort(),
      };
    },
    async list(query, offset, limit) {
      const found = sorted(query);
      return { total: found.length, counts: tally(matching(query, 'outcome').map((each) => each.outcome)), rows: found.slice(offset, offset + limit) };
    },
    async position(query, id) {
      const index = sorted(query).findIndex((each) => each.id === id);
      return { index: index < 0 ? null : index };
    },
    async get(id) {
      const trajectory = byId.get(id);
      if (!trajectory) throw new Error('This trajectory is not among those that the report shows.');
      const relatives = trajectory.relatives();
      return { trajectory, group: evaluated(trajectory) ? [trajectory] : relatives, others: evaluated(trajectory) ? relatives : [trajectory] };
    },
  };
  mountViewer(root, source, { featured: page.featured || (all[0] && all[0].id) });
})();

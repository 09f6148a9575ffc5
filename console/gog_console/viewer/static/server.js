/* Trajectories of a server as a source of the viewer. */
async function ask(path, query = {}) {
  const set = Object.fromEntries(Object.entries(query).filter(([, value]) => value !== '' && value !== undefined));
  const text = new URLSearchParams(set).toString();
  const answer = await fetch(text ? `${path}?${text}` : path, { credentials: 'same-origin' });
  const body = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw Object.assign(new Error(body.error), { answered: true });
  return body;
}

const serverSource = {
  facets: () => ask('/api/facets'),
  list: (query, offset, limit) => ask('/api/list', { ...query, offset, limit }),
  position: (query, id) => ask('/api/place', { ...query, id }),
  async get(id) {
    const found = await ask('/api/trajectory', { id });
    if (!found.trajectory.turns) found.trajectory.turns = [];
    return found;
  },
};

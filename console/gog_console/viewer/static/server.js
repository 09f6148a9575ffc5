/* Trajectories of a server as a source of the viewer. */
async function request(path, query = {}) {
  const set = Object.fromEntries(Object.entries(query).filter(([, value]) => value !== '' && value !== undefined));
  const text = new URLSearchParams(set).toString();
  const answer = await fetch(text ? `${path}?${text}` : path, { credentials: 'same-origin' });
  const body = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw Object.assign(new Error(body.error), { answered: true });
  return body;
}

const serverSource = {
  facets: () => request('/api/facets'),
  list: (query, offset, limit) => request('/api/list', { ...query, offset, limit }),
  position: (query, id) => request('/api/place', { ...query, id }),
  async get(id) {
    const found = await request('/api/trajectory', { id });
    if (!found.trajectory.turns) found.trajectory.turns = [];
    return found;
  },
};

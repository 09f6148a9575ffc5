'use strict';
/* Reads the charts under the pointer. The curves are drawn already; this finds the nearest step and shows its numbers
   in every chart of the group, so that one look compares them all. */
const page = JSON.parse(document.getElementById('data').textContent);

(() => {
  const VIEW_WIDTH = 400;
  const charts = [...document.querySelectorAll('svg[data-chart]')].map((svg) => {
    const figure = svg.closest('figure');
    return {
      svg,
      ...page.charts[svg.dataset.chart],
      at: figure.querySelector('.at'),
      end: figure.querySelector('.at').textContent,
      cursor: svg.querySelector('.cursor'),
      dots: [...svg.querySelectorAll('.dot')],
      values: [...figure.querySelectorAll('.key b')],
      last: [...figure.querySelectorAll('.key b')].map((value) => value.textContent),
    };
  });

  function nearest(chart, clientX) {
    const frame = chart.svg.getBoundingClientRect();
    const x = ((clientX - frame.left) / frame.width) * VIEW_WIDTH;
    let best = 0;
    chart.x.forEach((place, index) => {
      if (Math.abs(place - x) < Math.abs(chart.x[best] - x)) best = index;
    });
    return chart.steps[best];
  }

  function show(chart, step) {
    const index = chart.steps.indexOf(step);
    if (index < 0) return clear(chart);
    chart.at.textContent = `${chart.axis} ${step}`;
    for (const end of ['x1', 'x2']) chart.cursor.setAttribute(end, chart.x[index]);
    chart.cursor.setAttribute('visibility', 'visible');
    chart.lines.forEach((line, number) => {
      const y = line.y[index];
      const dot = chart.dots[number];
      dot.setAttribute('visibility', y === null ? 'hidden' : 'visible');
      if (y !== null) {
        dot.setAttribute('cx', chart.x[index]);
        dot.setAttribute('cy', y);
      }
      chart.values[number].textContent = line.text[index];
    });
  }

  function clear(chart) {
    chart.at.textContent = chart.end;
    for (const part of [chart.cursor, ...chart.dots]) part.setAttribute('visibility', 'hidden');
    chart.values.forEach((value, number) => { value.textContent = chart.last[number]; });
  }

  for (const chart of charts) {
    const together = charts.filter((other) => other.group === chart.group);
    chart.svg.addEventListener('pointermove', (event) => {
      const step = nearest(chart, event.clientX);
      for (const other of together) show(other, step);
    });
    chart.svg.addEventListener('pointerleave', () => together.forEach(clear));
  }
})();

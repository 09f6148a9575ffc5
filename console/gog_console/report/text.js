/* Text on the page. Everything that a model, a tool or a dataset wrote goes through `h`, which makes text nodes: nothing
   is ever read as markup. Signs that a reader would not see, or that would move others about, are shown by name. */
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;
const NAMES = {
  '\u001b': 'ESC', '\u0000': 'NUL', '\u0007': 'BEL', '\u0008': 'BS', '\r': 'CR', '\u00ad': 'soft hyphen', '\u200b': 'zero width', '\u200c': 'ZWNJ',
  '\u200d': 'ZWJ', '\u200e': 'LRM', '\u200f': 'RLM', '\u2028': 'line separator', '\u2029': 'paragraph separator', '\u202a': 'LRE', '\u202b': 'RLE',
  '\u202c': 'PDF', '\u202d': 'LRO', '\u202e': 'RLO', '\u2066': 'LRI', '\u2067': 'RLI', '\u2068': 'FSI', '\u2069': 'PDI', '\ufeff': 'BOM',
};
const named = (sign) => NAMES[sign] || `U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`;
const plain = (text) => String(text).replace(HIDDEN, (sign) => `⟨${named(sign)}⟩`);

/* A string as nodes: itself, or pieces of it between marks for its hidden signs. */
function visible(text) {
  if (text.search(HIDDEN) < 0) return [text];
  const parts = [];
  let last = 0;
  for (const found of text.matchAll(HIDDEN)) {
    const mark = document.createElement('span');
    mark.className = 'sign';
    mark.title = `U+${found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}, shown by name`;
    mark.textContent = named(found[0]);
    parts.push(text.slice(last, found.index), mark);
    last = found.index + found[0].length;
  }
  return [...parts, text.slice(last)];
}

function h(name, options = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? '' : plain(value));
  }
  const shown = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  element.append(...shown.flatMap((child) => (child instanceof Node ? [child] : visible(String(child)))));
  return element;
}

const seconds = (value) => {
  if (value === undefined) return '';
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  return value < 60 ? `${value.toFixed(1)} s` : `${Math.round(value)} s`;
};
const count = (number, noun) => `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`;
const signed = (value, digits) => `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(digits)}`;

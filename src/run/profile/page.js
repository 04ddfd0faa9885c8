// Draws `flame`, a tree of {name, seconds, parts}, starting at the node that was clicked.
const chart = document.getElementById("flame");
const details = document.getElementById("details");

function text(part) {
  const share = (100 * part.seconds / flame.seconds).toFixed(2);
  return `${part.name}: ${(1e3 * part.seconds).toFixed(3)} ms, ${share} % of the iteration`;
}

// Gives each name a fixed color.
function color(name) {
  let hash = 7;
  for (const c of name) hash = (hash * 31 + c.charCodeAt(0)) % 360;
  return `hsl(${hash} 55% 72%)`;
}

function row(depth) {
  while (chart.children.length <= depth) {
    chart.appendChild(document.createElement("div")).className = "row";
  }
  return chart.children[depth];
}

function box(depth, part, left, width, path) {
  const element = document.createElement("div");
  element.style.left = `${100 * left}%`;
  element.style.width = `${100 * width}%`;
  element.style.background = color(part.name);
  element.textContent = part.name;
  element.title = text(part);
  element.onmouseenter = () => { details.textContent = text(part); };
  element.onclick = () => draw(path);
  row(depth).appendChild(element);
}

function below(depth, part, left, width, path) {
  for (const child of part.parts) {
    const share = part.seconds > 0 ? width * child.seconds / part.seconds : 0;
    // Skip parts narrower than a pixel, which would be invisible.
    if (share > 0.0008) {
      const to = [...path, child];
      box(depth, child, left, share, to);
      below(depth + 1, child, left, share, to);
    }
    left += share;
  }
}

// `path` leads from the root to the part that fills the width.
function draw(path) {
  chart.replaceChildren();
  path.forEach((part, depth) => box(depth, part, 0, 1, path.slice(0, depth + 1)));
  below(path.length, path[path.length - 1], 0, 1, path);
}

draw([flame]);

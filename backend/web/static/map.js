// The map: points as bytes (views/atlas.py says how), drawn pixel by pixel, so that 100,000 of them move smoothly.
"use strict";
const FAILED = 6;
const canvas = document.getElementById("map");
if (canvas) start();

async function start() {
  const answer = await fetch(canvas.dataset.points);
  if (!answer.ok) return say("The map could not be loaded.");
  const points = unpack(await answer.arrayBuffer());
  const names = JSON.parse(canvas.dataset.classes), most = Number(canvas.dataset.most);
  const chosen = new Uint8Array(points.n), absent = new Uint8Array(points.n);
  const forms = { axes: { x: points.x, y: points.y, absent: absent.slice() } };
  const view = { x: 0, y: 0, scale: 1 };
  const context = canvas.getContext("2d");
  let image, pixels, width, height, path = [], asked = false, colours, order;
  const field = (id) => document.getElementById(id);

  function fit() {
    const dense = Math.min(2, window.devicePixelRatio || 1), box = canvas.getBoundingClientRect();
    width = canvas.width = Math.max(1, Math.round(box.width * dense));
    height = canvas.height = Math.max(1, Math.round(box.height * dense));
    image = context.createImageData(width, height);
    pixels = new Uint32Array(image.data.buffer);
    ask();
  }
  function ask() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  }
  const unit = () => Math.min(width, height) * 0.48 * view.scale / 32767;
  const left = (i) => (width / 2 + (points.x[i] - view.x) * unit());
  const top = (i) => (height / 2 - (points.y[i] - view.y) * unit());

  function draw() {
    pixels.fill(colours.back);
    const step = unit(), size = points.n > 20000 ? 2 : 4, shown = field("show").value;
    const is_shown = shown === "" ? -1 : Number(shown);
    for (const i of order) {
      if (absent[i] || (is_shown >= 0 && points.state[i] !== is_shown)) continue;
      const x = (width / 2 + (points.x[i] - view.x) * step) | 0, y = (height / 2 - (points.y[i] - view.y) * step) | 0;
      if (points.state[i] === FAILED) { cross(x, y, colours.of[i]); continue; }
      const wide = chosen[i] ? size + 3 : points.state[i] ? size + 1 : size;
      if (x < 0 || y < 0 || x + wide >= width || y + wide >= height) continue;
      const colour = chosen[i] ? colours.ink : colours.of[i];
      for (let row = 0, at = y * width + x; row < wide; row++, at += width)
        for (let column = 0; column < wide; column++) pixels[at + column] = colour;
    }
    context.putImageData(image, 0, 0);
    if (path.length > 1) {
      context.beginPath();
      path.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.closePath();
      context.lineWidth = 2;
      context.strokeStyle = css("--batch");
      context.stroke();
    }
  }

  function cross(x, y, colour) {
    if (x < 4 || y < 4 || x + 5 >= width || y + 5 >= height) return;
    for (let by = -4; by <= 4; by++)
      for (const way of [by, -by]) pixels[(y + way) * width + x + by] = pixels[(y + way) * width + x + by + 1] = colour;
  }

  function paint() {
    const by = field("colour").value, of = new Uint32Array(points.n);
    const states = [...field("show").options].slice(1).map((one) => one.text);
    const key = [];
    if (by === "state") {
      const tones = ["--pool", "--batch", "--labelled", "--holdout", "--link", "--new", "--failed"].map((name) => packed(css(name)));
      for (let i = 0; i < points.n; i++) of[i] = tones[points.state[i]];
      states.forEach((name, at) => key.push([name, tones[at]]));
    } else if (by === "klass") {
      const none = packed(css("--new"));
      const tones = names.map((_, at) => hue(at * 137.508, 62, is_dark() ? 62 : 42));
      for (let i = 0; i < points.n; i++) of[i] = points.klass[i] < tones.length ? tones[points.klass[i]] : none;
      names.slice(0, 40).forEach((name, at) => key.push([name, tones[at]]));
      if (names.length > 40) key.push([`and ${names.length - 40} more`, none]);
    } else {
      const values = points[by], none = packed(css("--new"));
      const last = by === "round" ? values.reduce((a, b) => Math.max(a, b), 1) : 255;
      const ramp = Array.from({ length: 64 }, (_, at) => hue(230 - 3.2 * at, 75, (is_dark() ? 70 : 40) - 0.1 * at));
      for (let i = 0; i < points.n; i++)
        of[i] = by === "round" && !values[i] ? none : ramp[Math.min(63, Math.floor((63 * values[i]) / last))];
      if (by === "doubt") key.push(["sure", ramp[0]], ["torn between two classes", ramp[63]]);
      else if (by === "strange") key.push(["like what is labelled", ramp[0]], ["unlike it", ramp[63]]);
      else key.push(["in no batch", none], ["first rounds", ramp[0]], [`round ${last}`, ramp[63]]);
    }
    colours = { of, ink: packed(css("--ink")), back: packed(css("--card")) };
    order = Uint32Array.from(points.byState);
    field("key").replaceChildren(...key.map(([name, tone]) => {
      const line = document.createElement("li"), swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      const square = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      swatch.setAttribute("viewBox", "0 0 10 10");
      swatch.setAttribute("aria-hidden", "true");
      for (const [what, value] of [["width", 10], ["height", 10], ["rx", 2]]) square.setAttribute(what, value);
      square.setAttribute("fill", `rgb(${tone & 255} ${(tone >> 8) & 255} ${(tone >> 16) & 255})`);
      swatch.append(square);
      line.append(swatch, name);
      return line;
    }));
    ask();
  }

  function choose(is_in) {
    let count = 0;
    for (let i = 0; i < points.n; i++) count += chosen[i];
    let left_out = 0;
    for (let i = 0; i < points.n; i++) {
      if (chosen[i] || absent[i] || points.state[i] !== 0 || !is_in(i)) continue;
      if (count < most) { chosen[i] = 1; count++; } else left_out++;
    }
    tell(count, left_out);
  }
  function tell(count, left_out) {
    const ids = [];
    for (let i = 0; i < points.n; i++) if (chosen[i]) ids.push(points.id[i]);
    field("items").value = ids.join(",");
    field("first").disabled = field("like").disabled = !count;
    field("chosen").textContent = (count ? `${count} items of the pool are chosen` : "Nothing is chosen")
      + (left_out ? `; ${left_out} more were left out.` : ".");
    ask();
  }
  function pick(x, y) {
    let best = -1, near = 12 * 12 * 4;
    for (let i = 0; i < points.n; i++) {
      if (absent[i]) continue;
      const distance = (left(i) - x) ** 2 + (top(i) - y) ** 2;
      if (distance < near) { near = distance; best = i; }
    }
    if (best < 0) return;
    const states = [...field("show").options].slice(1).map((one) => one.text), picture = new Image(96, 96);
    const text = `Item ${points.id[best]}: ${states[points.state[best]]}`
      + (points.klass[best] < names.length ? `, ${names[points.klass[best]]}` : "")
      + `, uncertainty ${(points.doubt[best] / 2.55).toFixed(0)} %`
      + `, drift ${(points.strange[best] / 2.55).toFixed(0)} %. `;
    picture.alt = "";
    picture.onerror = () => picture.remove();
    if ("pictured" in canvas.dataset) picture.src = canvas.dataset.points.replace("/map/points", `/items/${points.id[best]}/thumbnail`);
    field("point").replaceChildren(...(picture.src ? [picture, text] : [text]));
  }
  function zoom(by, x = width / 2, y = height / 2) {
    const before = unit(), scale = Math.min(200, Math.max(0.5, view.scale * by));
    view.x += (x - width / 2) * (1 / before - view.scale / scale / before);
    view.y -= (y - height / 2) * (1 / before - view.scale / scale / before);
    view.scale = scale;
    ask();
  }

  async function move(to) {
    if (!forms[to]) {
      const answer = await fetch(field("places").dataset.umap);
      if (!answer.ok) { field("places").value = "axes"; return say("The map by UMAP could not be loaded."); }
      forms[to] = unfold(await answer.arrayBuffer(), points);
    }
    points.x = forms[to].x; points.y = forms[to].y;
    absent.set(forms[to].absent);
    Object.assign(view, { x: 0, y: 0, scale: 1 });
    canvas.dataset.places = to;
    ask();
  }

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * width / box.width, (event.clientY - box.top) * height / box.height];
  };
  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    held = { at: place(event), moved: 0, pans: field("drag").value === "pan" || event.shiftKey || event.button === 1 };
    path = held.pans ? [] : [held.at];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    const at = place(event);
    held.moved += Math.abs(at[0] - held.at[0]) + Math.abs(at[1] - held.at[1]);
    if (held.pans) { view.x -= (at[0] - held.at[0]) / unit(); view.y += (at[1] - held.at[1]) / unit(); }
    else path.push(at);
    held.at = at;
    ask();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!held) return;
    if (held.moved < 8) pick(...place(event));
    else if (path.length > 2) { const around = path; choose((i) => inside(around, left(i), top(i))); }
    held = null;
    path = [];
    ask();
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), ...place(event));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const by = 60 / unit(), way = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, by], ArrowDown: [0, -by] }[event.key];
    if (way) { view.x += way[0]; view.y += way[1]; ask(); event.preventDefault(); }
    else if (event.key === "+" || event.key === "=") zoom(1.4);
    else if (event.key === "-") zoom(1 / 1.4);
    else if (event.key === "Escape") { chosen.fill(0); tell(0, 0); }
  });
  field("in").onclick = () => zoom(1.4);
  field("out").onclick = () => zoom(1 / 1.4);
  field("clear").onclick = () => { chosen.fill(0); tell(0, 0); };
  field("view").onclick = () => choose((i) => left(i) >= 0 && left(i) < width && top(i) >= 0 && top(i) < height);
  field("colour").onchange = paint;
  field("show").onchange = ask;
  if (field("places")) field("places").onchange = () => move(field("places").value);
  new ResizeObserver(fit).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  paint();
  fit();
  draw();
  canvas.dataset.drawn = points.n;
}

function unpack(buffer) {
  const n = new DataView(buffer).getUint32(4, true), at = (bytes) => 8 + bytes * n;
  const points = {
    n, id: new Uint32Array(buffer, 8, n), x: new Int16Array(buffer, at(4), n), y: new Int16Array(buffer, at(6), n),
    klass: new Uint16Array(buffer, at(8), n), round: new Uint16Array(buffer, at(10), n),
    doubt: new Uint8Array(buffer, at(12), n), state: new Uint8Array(buffer, at(13), n),
    strange: new Uint8Array(buffer, at(14), n),
  };
  points.byState = Array.from({ length: n }, (_, i) => i).sort((a, b) => points.state[a] - points.state[b]);
  return points;
}
function unfold(buffer, points) {
  const n = new DataView(buffer).getUint32(4, true), at = new Map();
  const id = new Uint32Array(buffer, 8, n), x = new Int16Array(buffer, 8 + 4 * n, n), y = new Int16Array(buffer, 8 + 6 * n, n);
  id.forEach((one, row) => at.set(one, row));
  const form = { x: new Int16Array(points.n), y: new Int16Array(points.n), absent: new Uint8Array(points.n) };
  for (let i = 0; i < points.n; i++) {
    const row = at.get(points.id[i]);
    if (row === undefined) form.absent[i] = 1;
    else { form.x[i] = x[row]; form.y[i] = y[row]; }
  }
  return form;
}
function inside(path, x, y) {
  let is_in = false;
  for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
    const [ax, ay] = path[i], [bx, by] = path[j];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) is_in = !is_in;
  }
  return is_in;
}
function say(text) { document.getElementById("chosen").textContent = text; }
function css(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
function is_dark() { return matchMedia("(prefers-color-scheme: dark)").matches; }
function packed(hex) {
  const value = parseInt(hex.slice(1), 16);
  return ((255 << 24) | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
}
function hue(degrees, saturation, lightness) {
  const s = saturation / 100, l = lightness / 100, a = s * Math.min(l, 1 - l);
  const part = (n) => {
    const k = (n + (((degrees % 360) + 360) % 360) / 30) % 12;
    return Math.round(255 * (l - a * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return ((255 << 24) | (part(4) << 16) | (part(8) << 8) | part(0)) >>> 0;
}

"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const AXES = ["z", "y", "x"];
  // A plane is normal to one axis; the other two run down and right.
  const PLANES = [
    { name: "yx", normal: 0, down: 1, right: 2 },
    { name: "yz", normal: 2, down: 1, right: 0 },
    { name: "zx", normal: 1, down: 0, right: 2 },
  ];
  const VISIBLE = 1 / 512; // of the Gaussian; less changes no pixel
  const byId = (id) => document.getElementById(id);
  const state = { patch: null, at: [0, 0, 0], gaussian: "smooth", points: true, lines: true };
  const loaded = new Map();

  // ----- what is known of a patch -----

  /** Voxels and, for each keypoint, its Gaussian along each axis at the voxels and at the coarse voxels. */
  function load(patch) {
    if (loaded.has(patch.index)) return loaded.get(patch.index);
    const bytes = atob(byId(`voxels-${patch.index}`).textContent);
    const voxels = new Uint8Array(bytes.length);
    for (let i = 0; i < bytes.length; i += 1) voxels[i] = bytes.charCodeAt(i);
    const profile = (center, sigma, places) => places.map((place) => Math.exp(-0.5 * ((place - center) / sigma) ** 2));
    const centers = AXES.map((_, axis) => Array.from({ length: patch.shape[axis] }, (__, j) => center(axis, j)));
    const cells = AXES.map((_, axis) => centers[axis].map((c) => {
      const factor = data.ds_factor[axis];
      return Math.floor((c + 0.5) / factor) * factor + (factor - 1) / 2;
    }));
    const profiles = (places) => patch.points.map((point) =>
      AXES.map((_, axis) => profile(point[axis], patch.sigma[axis], places[axis])));
    const inside = AXES.map((_, axis) =>
      centers[axis].map((c) => c >= patch.valid[0][axis] - 0.5 && c < patch.valid[1][axis] - 0.5));
    const known = { voxels, inside, smooth: profiles(centers), grid: profiles(cells) };
    loaded.set(patch.index, known);
    return known;
  }

  /** Where the middle of a shown voxel lies, in voxels of the patch. */
  function center(axis, j) {
    const first = j * data.step[axis];
    return (first + Math.min(first + data.step[axis], data.patch_shape[axis]) - 1) / 2;
  }

  function shownVoxel(patch, axis, coordinate) {
    const j = Math.floor((coordinate + 0.5) / data.step[axis]);
    return Math.max(0, Math.min(patch.shape[axis] - 1, j));
  }

  /** The keypoint nearest to the middle, as the pictures of `keypatch inspect` have it; else the middle. */
  function middle(patch) {
    const half = data.patch_shape.map((n) => (n - 1) / 2);
    let best = null;
    patch.points.forEach((point, k) => {
      if (!patch.inside[k]) return;
      const distance = Math.hypot(...point.map((c, axis) => (c - half[axis]) / data.patch_shape[axis]));
      if (best === null || distance < best.distance) best = { distance, point };
    });
    const target = best ? best.point : AXES.map((_, axis) => (patch.valid[0][axis] + patch.valid[1][axis] - 1) / 2);
    return target.map((c, axis) => shownVoxel(patch, axis, c));
  }

  const color = (patch, k) => data.palette[patch.point_classes[k] % data.palette.length];

  // ----- drawing -----

  /** One slice as pixels: grey, stripes outside the volume, the Gaussian over it. */
  function slice(patch, plane, at) {
    const { normal, down, right } = plane;
    const known = load(patch);
    const height = patch.shape[down], width = patch.shape[right];
    const stride = [patch.shape[1] * patch.shape[2], patch.shape[2], 1];
    const image = new ImageData(width, height);
    const pixels = image.data;
    for (let i = 0, out = 0; i < height; i += 1) {
      for (let j = 0; j < width; j += 1, out += 4) {
        const grey = known.voxels[at * stride[normal] + i * stride[down] + j * stride[right]];
        pixels[out] = pixels[out + 1] = pixels[out + 2] = grey;
        pixels[out + 3] = 255;
        if (!(known.inside[normal][at] && known.inside[down][i] && known.inside[right][j])) {
          const stripe = data.padding[((i + j) >> 2) & 1];
          for (let c = 0; c < 3; c += 1) pixels[out + c] = grey * 0.3 + stripe[c] * 0.7;
        }
      }
    }
    if (state.gaussian !== "off") overlay(patch, plane, at, known[state.gaussian], pixels);
    return image;
  }

  /** value = max over the keypoints of a class of exp(-1/2 sum ((j - centre) / sigma)^2), class after class. */
  function overlay(patch, plane, at, profiles, pixels) {
    const { normal, down, right } = plane;
    const height = patch.shape[down], width = patch.shape[right];
    for (const c of new Set(patch.point_classes)) {
      const tint = data.palette[c % data.palette.length];
      const value = new Float32Array(width * height);
      profiles.forEach((profile, k) => {
        if (patch.point_classes[k] !== c || profile[normal][at] < VISIBLE) return;
        for (let i = 0; i < height; i += 1) {
          const row = profile[normal][at] * profile[down][i];
          if (row < VISIBLE) continue;
          for (let j = 0; j < width; j += 1) {
            const here = row * profile[right][j];
            if (here > value[i * width + j]) value[i * width + j] = here;
          }
        }
      });
      for (let i = 0; i < value.length; i += 1) {
        const opacity = data.overlay * value[i];
        if (opacity < VISIBLE) continue;
        for (let k = 0; k < 3; k += 1) {
          pixels[4 * i + k] = pixels[4 * i + k] * (1 - opacity) + tint[k] * opacity;
        }
      }
    }
  }

  const scratch = document.createElement("canvas");

  function paint(canvas, patch, plane, at) {
    const image = slice(patch, plane, at);
    scratch.width = image.width;
    scratch.height = image.height;
    scratch.getContext("2d").putImageData(image, 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(scratch, 0, 0, canvas.width, canvas.height);
    return context;
  }

  /** Pixels of a canvas for a coordinate of the patch: voxel i covers [i - 1/2, i + 1/2). */
  const toPixel = (patch, axis, size) => (c) => ((c + 0.5) / (patch.shape[axis] * data.step[axis])) * size;

  function drawPlane(plane) {
    const canvas = document.querySelector(`canvas[data-plane="${plane.name}"]`);
    const { patch, at } = state;
    const density = window.devicePixelRatio || 1;
    const extent = (axis) => patch.shape[axis] * data.step[axis] * patch.spacing[axis];
    canvas.style.aspectRatio = `${extent(plane.right)} / ${extent(plane.down)}`;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * density));
    canvas.height = Math.max(1, Math.round((canvas.width * extent(plane.down)) / extent(plane.right)));
    const context = paint(canvas, patch, plane, at[plane.normal]);
    const x = toPixel(patch, plane.right, canvas.width), y = toPixel(patch, plane.down, canvas.height);
    if (state.lines) drawLines(context, plane, x, y, density);
    if (state.points) patch.points.forEach((_, k) => drawPoint(context, plane, k, x, y, density));
  }

  function drawLines(context, plane, x, y, density) {
    const { width, height } = context.canvas;
    const across = x(center(plane.right, state.at[plane.right])), along = y(center(plane.down, state.at[plane.down]));
    const gap = 14 * density;
    context.strokeStyle = "rgba(255, 255, 255, .55)";
    context.lineWidth = density;
    context.beginPath();
    for (const [from, to] of [[0, along - gap], [along + gap, height]]) {
      if (to > from) { context.moveTo(across, from); context.lineTo(across, to); }
    }
    for (const [from, to] of [[0, across - gap], [across + gap, width]]) {
      if (to > from) { context.moveTo(from, along); context.lineTo(to, along); }
    }
    context.stroke();
  }

  /** The one-sigma shell where the slice cuts it, and a cross on the nearest slice. */
  function drawPoint(context, plane, k, x, y, density) {
    const { patch, at } = state;
    const point = patch.points[k];
    const step = data.step[plane.normal];
    const distance = Math.abs(point[plane.normal] - center(plane.normal, at[plane.normal]));
    const reach = Math.max(patch.sigma[plane.normal], 1.5 * step);
    const nearest = patch.inside[k] && shownVoxel(patch, plane.normal, point[plane.normal]) === at[plane.normal];
    if (distance > reach && !nearest) return;
    const share = Math.sqrt(Math.max(0, 1 - (distance / reach) ** 2));
    const px = x(point[plane.right]), py = y(point[plane.down]);
    const radius = (axis, scale) => Math.max(share * Math.abs(scale(patch.sigma[axis]) - scale(0)), 2 * density);
    // Lighter than the Gaussian of the same colour, with a dark rim, so that both are seen on grey and on each other.
    const light = color(patch, k).map((c) => Math.round(c + (255 - c) * 0.6));
    const strokes = [["rgba(0, 0, 0, .7)", 4], [`rgb(${light.join(",")})`, 2]];
    for (const [style, width] of strokes) {
      context.strokeStyle = style;
      context.lineWidth = width * density;
      context.beginPath();
      context.ellipse(px, py, radius(plane.right, x), radius(plane.down, y), 0, 0, 2 * Math.PI);
      if (nearest) {
        const arm = 6 * density;
        context.moveTo(px - arm, py);
        context.lineTo(px + arm, py);
        context.moveTo(px, py - arm);
        context.lineTo(px, py + arm);
      }
      context.stroke();
    }
  }

  function draw() {
    if (!state.patch) return;
    PLANES.forEach(drawPlane);
    AXES.forEach((axis, k) => {
      const slider = byId(`slice-${axis}`);
      const voxel = Math.round(center(k, state.at[k]));
      slider.value = state.at[k];
      slider.setAttribute("aria-valuetext", `${axis} ${voxel} of ${data.patch_shape[k]}`);
      slider.nextElementSibling.textContent = `${voxel} / ${data.patch_shape[k]}`;
      document.querySelector(`canvas[data-plane="${PLANES.find((p) => p.normal === k).name}"]`)
        .setAttribute("aria-label", `Slice ${axis} = ${voxel} of patch ${state.patch.index}`);
    });
    showPlace();
  }

  function showPlace() {
    const { patch, at } = state;
    const voxel = at.map((j, axis) => Math.round(center(axis, j)));
    const stride = [patch.shape[1] * patch.shape[2], patch.shape[2], 1];
    const grey = load(patch).voxels[at.reduce((sum, j, axis) => sum + j * stride[axis], 0)];
    const value = patch.window[0] + (grey / 255) * (patch.window[1] - patch.window[0]);
    const inVolume = voxel.map((v, axis) => v + patch.origin[axis]);
    byId("place").textContent =
      `z y x: ${voxel.join(" ")} in the patch, ${inVolume.join(" ")} in the volume; value about ${Number(value.toPrecision(3))}`;
  }

  // ----- choosing -----

  const fill = (select, entries) => entries.forEach(([value, text]) => {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = text;
    select.append(option);
  });

  const classesInside = (patch) => new Set(patch.point_classes.filter((_, k) => patch.inside[k]));

  const FILTERS = {
    kind: { of: (patch) => [patch.kind], text: (value) => value },
    class: { of: (patch) => { const found = [...classesInside(patch)]; return found.length ? found : [-1]; },
      text: (value) => (value < 0 ? "none inside" : data.classes[value]) },
    fold: { of: (patch) => [patch.fold], text: (value) => (value < 0 ? "no folds" : `fold ${value}`) },
    volume: { of: (patch) => [patch.volume], text: (value) => value },
  };

  function fillFilters() {
    for (const [name, filter] of Object.entries(FILTERS)) {
      const values = [...new Set(data.patches.flatMap(filter.of))];
      values.sort((a, b) => (a < b ? -1 : Number(a > b)));
      const select = byId(`filter-${name}`);
      // The value is the place in the list: a name may be anything, even empty.
      fill(select, [["", "all"], ...values.map((value, k) => [String(k), filter.text(value)])]);
      select.addEventListener("change", applyFilters);
      filter.values = values;
    }
  }

  function matching() {
    return data.patches.filter((patch) => Object.entries(FILTERS).every(([name, filter]) => {
      const chosen = byId(`filter-${name}`).value;
      return chosen === "" || filter.of(patch).includes(filter.values[Number(chosen)]);
    }));
  }

  function applyFilters() {
    const found = matching();
    const shown = new Set(found.map((patch) => patch.index));
    for (const item of byId("strip").children) item.hidden = !shown.has(Number(item.dataset.index));
    byId("matches").textContent = found.length ? `${found.length} of ${data.patches.length} shown` : "no patch fits";
    byId("viewer").hidden = !found.length;
    if (found.length && !found.includes(state.patch)) choose(found[0]);
    else draw();
  }

  function buildStrip() {
    for (const patch of data.patches) {
      const item = document.createElement("li");
      item.setAttribute("role", "option");
      item.dataset.index = patch.index;
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = 92;
      canvas.setAttribute("aria-hidden", "true");
      const inside = patch.inside.filter(Boolean).length;
      const lines = [`${patch.index}: ${patch.kind}`, patch.volume, `${inside} keypoint${inside === 1 ? "" : "s"}`];
      item.append(canvas, ...lines.map((text) => {
        const line = document.createElement("span");
        line.textContent = text;
        line.title = text;
        return line;
      }));
      item.addEventListener("click", () => { choose(patch); item.focus(); });
      byId("strip").append(item);
      thumbnail(canvas, patch);
    }
    byId("strip").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      move(step);
      document.querySelector('#strip [aria-selected="true"]').focus();
    });
  }

  function thumbnail(canvas, patch) {
    const plane = PLANES[0];
    const height = patch.shape[1] * data.step[1] * patch.spacing[1], width = patch.shape[2] * data.step[2] * patch.spacing[2];
    const scale = 92 / Math.max(height, width);
    canvas.height = Math.max(1, Math.round(height * scale));
    canvas.width = Math.max(1, Math.round(width * scale));
    paint(canvas, patch, plane, middle(patch)[plane.normal]);
    canvas.style.width = `${canvas.width}px`;
    canvas.style.height = `${canvas.height}px`;
  }

  /** The next or previous of the patches that fit the filters. */
  function move(step) {
    const found = matching();
    if (!found.length) return;
    const k = found.indexOf(state.patch) + step;
    choose(found[Math.max(0, Math.min(found.length - 1, k))]);
  }

  function choose(patch) {
    state.patch = patch;
    state.point = null;
    state.at = middle(patch);
    for (const item of byId("strip").children) {
      const chosen = Number(item.dataset.index) === patch.index;
      item.setAttribute("aria-selected", String(chosen));
      item.tabIndex = chosen ? 0 : -1;
      if (chosen) reveal(item);
    }
    const fold = patch.fold < 0 ? "" : `, fold ${patch.fold}`;
    byId("patch-title").textContent = `Patch ${patch.index}: ${patch.kind}${fold}, ${patch.volume}`;
    AXES.forEach((axis, k) => { byId(`slice-${axis}`).max = patch.shape[k] - 1; });
    const extent = (axis) => patch.shape[axis] * data.step[axis] * patch.spacing[axis];
    const planes = document.querySelector(".planes");
    planes.style.setProperty("--wide", `${extent(2)}fr`);
    planes.style.setProperty("--deep", `${extent(0)}fr`);
    byId("viewer").style.setProperty("--room", `${Math.round((760 * (extent(2) + extent(0))) / Math.max(extent(1) + extent(0), extent(2)))}px`);
    planes.style.setProperty("--yz", `${Math.min(100, (100 * extent(0)) / extent(2))}%`);
    listPoints(patch);
    draw();
  }

  /** Scroll the strip, and nothing but the strip. */
  function reveal(item) {
    const strip = byId("strip");
    const left = item.offsetLeft - strip.offsetLeft;
    if (left < strip.scrollLeft || left + item.offsetWidth > strip.scrollLeft + strip.clientWidth) {
      strip.scrollLeft = left - (strip.clientWidth - item.offsetWidth) / 2;
    }
  }

  function listPoints(patch) {
    const items = patch.points.map((point, k) => {
      const item = document.createElement("li"), button = document.createElement("button"), dot = document.createElement("span");
      button.type = "button";
      button.dataset.point = k;
      dot.style.background = `rgb(${color(patch, k).join(",")})`;
      const place = point.map((c) => c.toFixed(1)).join(" ");
      const where = patch.inside[k] ? "" : ", outside";
      button.append(dot, `${data.classes[patch.point_classes[k]]}: ${place}${where}`);
      button.title = `annotation ${patch.annotations[k]}`;
      button.addEventListener("click", () => goTo(point));
      item.append(button);
      return item;
    });
    if (!items.length || patch.hidden) {
      const item = document.createElement("li");
      item.textContent = patch.hidden ? `and ${patch.hidden} more, not in this file` : "none within reach";
      items.push(item);
    }
    byId("points").replaceChildren(...items);
  }

  function goTo(point) {
    state.at = point.map((c, axis) => shownVoxel(state.patch, axis, c));
    draw();
  }

  // ----- hands -----

  function step(axis, by) {
    const next = Math.max(0, Math.min(state.patch.shape[axis] - 1, state.at[axis] + by));
    if (next === state.at[axis]) return false;
    state.at[axis] = next;
    draw();
    return true;
  }

  function listenToPlanes() {
    for (const plane of PLANES) {
      const canvas = document.querySelector(`canvas[data-plane="${plane.name}"]`);
      canvas.addEventListener("wheel", (event) => {
        if (event.ctrlKey || !event.deltaY) return;
        // At the last slice the wheel scrolls the page again.
        if (step(plane.normal, Math.sign(event.deltaY))) event.preventDefault();
      }, { passive: false });
      const follow = (event) => {
        const box = canvas.getBoundingClientRect();
        const place = { [plane.right]: (event.clientX - box.left) / box.width, [plane.down]: (event.clientY - box.top) / box.height };
        for (const [axis, share] of Object.entries(place)) {
          const n = state.patch.shape[axis];
          state.at[axis] = Math.max(0, Math.min(n - 1, Math.floor(share * n)));
        }
        draw();
      };
      canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); follow(event); });
      canvas.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
      const slider = byId(`slice-${AXES[plane.normal]}`);
      slider.addEventListener("input", () => { state.at[plane.normal] = Number(slider.value); draw(); });
    }
  }

  function setGaussian(value) {
    state.gaussian = value;
    document.querySelector(`input[name="gaussian"][value="${value}"]`).checked = true;
    draw();
  }

  function setShown(what, value) {
    state[what] = value;
    byId(`show-${what}`).checked = value;
    draw();
  }

  function nextPoint() {
    const { points } = state.patch;
    if (!points.length) return;
    state.point = ((state.point ?? -1) + 1) % points.length;
    goTo(points[state.point]);
  }

  const KEYS = {
    n: () => move(1),
    p: () => move(-1),
    j: nextPoint,
    g: () => setGaussian({ off: "smooth", smooth: "grid", grid: "off" }[state.gaussian]),
    k: () => setShown("points", !state.points),
    l: () => setShown("lines", !state.lines),
  };

  function listenToKeys() {
    byId("browser").addEventListener("keydown", (event) => {
      const act = KEYS[event.key];
      // In a list of choices a letter looks for an entry.
      if (!act || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT" || !state.patch) return;
      const inStrip = byId("strip").contains(event.target);
      event.preventDefault();
      act();
      if (inStrip) document.querySelector('#strip [aria-selected="true"]').focus();
    });
  }

  function listenToSwitches() {
    for (const radio of document.querySelectorAll('input[name="gaussian"]')) {
      radio.addEventListener("change", () => setGaussian(radio.value));
    }
    byId("show-points").addEventListener("change", (event) => setShown("points", event.target.checked));
    byId("show-lines").addEventListener("change", (event) => setShown("lines", event.target.checked));
    byId("scheme").addEventListener("click", () => {
      const root = document.documentElement;
      const dark = root.dataset.scheme ? root.dataset.scheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.scheme = dark ? "light" : "dark";
    });
    document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  }

  fillFilters();
  buildStrip();
  listenToPlanes();
  listenToKeys();
  listenToSwitches();
  applyFilters();
  new ResizeObserver(draw).observe(document.querySelector(".planes"));
})();

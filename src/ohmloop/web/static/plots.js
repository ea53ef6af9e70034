// Plotly figures from JSON, in the colours of the page. A trace names a colour of the palette as "@0" to "@6",
// "@ink", "@soft", "@line" or "@paper"; "@0/0.15" is the same with an opacity. Plotly itself is loaded last.
"use strict";

const LIGHT = {
  palette: ["#0072B2", "#C04A00", "#00805D", "#A8528A", "#946800", "#2E8BC0", "#333333"],
  ink: "#16202b", soft: "#55606d", line: "#e2e6eb", paper: "#ffffff",
};
const DARK = {
  palette: ["#66b7e8", "#ff9254", "#4fc9a0", "#e39ac7", "#f0b429", "#9ad0f0", "#d5dbe2"],
  ink: "#e6eaee", soft: "#a4afba", line: "#323a43", paper: "#1a1f25",
};

function colours() {
  if (matchMedia("print").matches) return LIGHT;
  const chosen = document.documentElement.dataset.theme;
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  return dark ? DARK : LIGHT;
}

function painted(value, theme) {
  if (typeof value === "string" && value.startsWith("@")) {
    const [name, opacity] = value.slice(1).split("/");
    const colour = /^\d+$/.test(name) ? theme.palette[Number(name) % 7] : theme[name];
    if (!opacity) return colour;
    const part = (k) => parseInt(colour.slice(k, k + 2), 16);
    return `rgba(${part(1)},${part(3)},${part(5)},${opacity})`;
  }
  if (Array.isArray(value)) {
    return value.length && typeof value[0] === "number" ? value : value.map((v) => painted(v, theme));
  }
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, painted(v, theme)]));
  }
  return value;
}

function axis(own, theme) {
  const title = typeof own?.title === "string" ? { text: own.title } : own?.title;
  return {
    gridcolor: theme.line, linecolor: theme.soft, zeroline: false, zerolinecolor: theme.soft, zerolinewidth: 1, ticks: "outside", ticklen: 4,
    tickcolor: theme.soft, automargin: true, ...own, title: { standoff: 8, ...title },
  };
}

function layoutOf(layout, theme, height) {
  const out = {
    autosize: true, height, margin: { l: 56, r: 14, t: 12, b: 44 }, hovermode: "closest",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: theme.palette,
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 12 } },
    ...layout,
    font: { family: "system-ui, sans-serif", size: 12.5, color: theme.ink, ...layout.font },
    hoverlabel: { bgcolor: theme.paper, bordercolor: theme.soft, font: { color: theme.ink } },
  };
  for (const key of new Set(["xaxis", "yaxis", ...Object.keys(layout)])) {
    if (/^[xy]axis\d*$/.test(key)) out[key] = axis(layout[key], theme);
  }
  return out;
}

async function draw(figure) {
  const area = figure.querySelector(".area");
  const state = figure.querySelector("[data-plot-state]");
  if (state) state.textContent = "Drawing …";
  try {
    if (!figure.ohmloop) {
      const answer = await fetch(figure.dataset.plot, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      figure.ohmloop = await answer.json();
    }
    const { data, layout = {} } = figure.ohmloop;
    const theme = colours();
    if (!data.length) {
      if (state) state.textContent = "Nothing to draw yet.";
      return;
    }
    if (state) state.remove();
    const height = Number(figure.dataset.height) || 320;
    await Plotly.react(area, painted(data, theme), layoutOf(painted(layout, theme), theme, height), {
      responsive: true, displaylogo: false, displayModeBar: "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
      toImageButtonOptions: { format: "svg", filename: "ohmloop" },
    });
    figure.dataset.drawn = "";
    performance.mark("ohmloop-plot");
  } catch (error) {
    const text = `The plot could not be drawn: ${error.message}. Its numbers are below.`;
    if (state) state.textContent = text;
    else area.textContent = text;
  }
}

const figures = [...document.querySelectorAll("[data-plot]")];
const drawAll = () => figures.forEach(draw);
drawAll();
document.addEventListener("themechange", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
matchMedia("print").addEventListener("change", drawAll);

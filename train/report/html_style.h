// The style sheet of a report. Colours are variables, so that the dark scheme is a second set of values.
#pragma once

#include <string_view>

namespace mixtape {

inline constexpr std::string_view html_style = R"(
:root { color-scheme: light dark; --bg: #f6f7f9; --card: #fff; --line: #e3e6eb; --ink: #1b2230; --soft: #667085;
  --good: #067647; --good-bg: #e7f6ee; --warn: #b54708; --warn-bg: #fdf1e3; --bad: #b42318; --bad-bg: #fdeceb;
  --c0: #2f6bdb; --c1: #d9730d; --c2: #0b8f6b; --c3: #8b4fd9; --c4: #cc3d64; --c5: #118fb0; --c6: #8a7413; --c7: #616b7c; }
@media (prefers-color-scheme: dark) { :root { --bg: #10141b; --card: #181e28; --line: #2a3240; --ink: #e6eaf1;
  --soft: #93a0b4; --good: #5bd19a; --good-bg: #12301f; --warn: #f3b368; --warn-bg: #3a2812; --bad: #ff8f86;
  --bad-bg: #3d1a17; --c0: #6ea3ff; --c1: #ffa24d; --c2: #46cfa4; --c3: #b88bff; --c4: #ff7f9f; --c5: #5bcbe8;
  --c6: #d9c04c; --c7: #a6b0c0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 13px; margin: 36px 0 12px; color: var(--soft); font-weight: 600; text-transform: uppercase; letter-spacing: .06em; }
h3 { font-size: 14px; margin: 0; font-weight: 600; }
.head { display: flex; gap: 14px; align-items: center; flex-wrap: wrap; }
.sub { color: var(--soft); margin: 6px 0 0; }
.pill { font-size: 13px; font-weight: 600; padding: 2px 10px; border-radius: 99px; color: var(--warn); background: var(--warn-bg); }
.pill.good { color: var(--good); background: var(--good-bg); }
.pill.bad { color: var(--bad); background: var(--bad-bg); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 24px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; min-width: 0; }
.card .label { color: var(--soft); font-size: 13px; }
.card .value { font-size: 23px; font-weight: 650; letter-spacing: -0.01em; white-space: nowrap; }
.card .note { color: var(--soft); font-size: 12.5px; }
.charts { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; }
.wide { grid-column: 1 / -1; }
@media (max-width: 800px) { .charts { grid-template-columns: 1fr; } main { padding: 20px 12px 40px; } }
.chart-head { display: flex; align-items: baseline; gap: 8px 16px; flex-wrap: wrap; margin-bottom: 6px; }
.chart-head .unit { color: var(--soft); font-size: 13px; }
.legend { display: flex; gap: 4px 16px; flex-wrap: wrap; font-size: 13px; color: var(--soft); margin-left: auto; }
.legend i { display: inline-block; width: 18px; border-top: 3px solid; vertical-align: middle; margin-right: 6px; }
.legend i.dots { border-top-style: dotted; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: var(--ink); }
svg .tick { fill: var(--soft); font-size: 11.5px; }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); stroke-opacity: .6; }
.line, .raw, .dashed { fill: none; stroke-linejoin: round; stroke-width: 1.8; }
.raw { stroke-width: 1; stroke-opacity: .28; } .dashed { stroke-dasharray: 5 4; stroke-width: 1.4; }
.resume { stroke: var(--soft); stroke-dasharray: 2 4; } .skip { fill: var(--bad); }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
.c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); } .c6 { stroke: var(--c6); } .c7 { stroke: var(--c7); }
svg .f0 { fill: var(--c0); } svg .f1 { fill: var(--c1); } svg .f2 { fill: var(--c2); } svg .f3 { fill: var(--c3); }
svg .f4 { fill: var(--c4); } svg .f5 { fill: var(--c5); } svg .f6 { fill: var(--c6); } svg .f7 { fill: var(--c7); }
.h > rect { fill: transparent; } .t { display: none; pointer-events: none; } .h:hover .t { display: block; }
.t rect { fill: var(--card); stroke: var(--line); } .t line { stroke: var(--soft); stroke-opacity: .5; }
.views > input { position: absolute; opacity: 0; }
.views > label { font-size: 12.5px; color: var(--soft); border: 1px solid var(--line); border-radius: 6px; padding: 1px 9px; cursor: pointer; }
.views > input:checked + label { color: var(--ink); background: var(--bg); font-weight: 600; }
.views > input:focus-visible + label { outline: 2px solid var(--c0); }
.view { display: none; margin-top: 8px; }
#v0:checked ~ .view0, #v1:checked ~ .view1, #v2:checked ~ .view2 { display: block; }
.none { color: var(--soft); text-align: center; padding: 48px 0; margin: 0; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: 13px; }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.word { overflow-wrap: anywhere; }
td .meter { background: var(--c0); height: 8px; border-radius: 4px; margin-top: 7px; min-width: 1px; }
.scroll { max-height: 420px; overflow: auto; }
.kind { font-size: 12px; font-weight: 600; padding: 1px 8px; border-radius: 99px; background: var(--bg); color: var(--soft); }
.kind.warning, .kind.skip { color: var(--bad); background: var(--bad-bg); }
.kind.resume { color: var(--warn); background: var(--warn-bg); }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 8px; }
pre { margin: 0; font: 12.5px/1.55 ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.sample { border-left: 3px solid var(--line); padding: 2px 0 2px 14px; margin: 12px 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.sample b { color: var(--soft); font-weight: 600; }
details { margin-top: 8px; } summary { cursor: pointer; color: var(--soft); font-size: 14px; }
details[open] > summary { margin-bottom: 8px; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; align-items: start; }
@media (max-width: 800px) { .two { grid-template-columns: 1fr; } }
footer { color: var(--soft); font-size: 13px; margin-top: 40px; }
@media print { body { background: #fff; } .card { break-inside: avoid; } .scroll { max-height: none; } }
)";

}  // namespace mixtape

"""Figures with sliders that work in a static page, without a kernel and without a network.

`bit_slider` draws the bit of `tfp_gaps.exact.bit` for two equally likely full posteriors
N(-d/2, s^2) and N(d/2, s^2): the reader sets d and s, an inline script draws the curves as SVG and
prints sd(q_C) = s, sd(p(z|C)) = sqrt(s^2 + d^2/4), the gap d^2/(8 s^2) and, by the trapezoidal
rule, overlap and missing information. The controls are native range inputs: labelled, with an
`<output>` each, and usable by keyboard.
"""

import html

from tfp_gaps import _checks
from tfp_gaps.book.figures import COLOURS

CURVES = (
    ("posterior_a", "full posterior if bit = 0", ""),
    ("posterior_b", "full posterior if bit = 1", ""),
    ("marginal", "p(z | C), their mixture", ""),
    ("moment_matched", "moment-matched Gaussian", "8 4"),
    ("mode_seeking", "mode-seeking Gaussian", "2 4"),
    ("shared", "shared posterior q_C", ""),
)
"""Key into `figures.COLOURS`, label, and dash pattern of each curve, in drawing order."""

QUANTITIES = (
    ("overlap", "overlap of the two"),
    ("shared_sd", "sd of the shared posterior"),
    ("marginal_sd", "sd of p(z | C)"),
    ("information", "missing information, nats"),
    ("gap", "conditioning gap, nats"),
)
"""Identifier and label of each printed number."""

_STYLE = """
#bit-slider{background:#fff;color:#111;border:1px solid #999;border-radius:6px;padding:.75rem;
 max-width:42rem;box-sizing:border-box;font-size:1rem;line-height:1.4}
#bit-slider *{color:#111;box-sizing:border-box}
#bit-slider .bit-row{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 .5rem}
#bit-slider input{width:100%;margin:.2rem 0 .7rem;accent-color:#1f66c9;min-height:1.6rem}
#bit-slider svg{width:100%;height:auto;display:block;background:#fff}
#bit-slider ul,#bit-slider dl{list-style:none;margin:.4rem 0;padding:0;display:grid;
 grid-template-columns:repeat(auto-fit,minmax(15.5rem,1fr));gap:.1rem .8rem}
#bit-slider li svg{display:inline-block;width:2rem;height:.8rem;margin-right:.4rem}
#bit-slider dl div{display:flex;justify-content:space-between;gap:.5rem}
#bit-slider dt,#bit-slider dd{margin:0;font-weight:normal}
#bit-slider output,#bit-slider dd{font-variant-numeric:tabular-nums;font-weight:bold}
"""

# Names: m is half the distance, s the width; n evaluates a normal density. The mode-seeking
# Gaussian comes from a search over its mean and width that starts at the centre and at one mode.
_SCRIPT = """
(function(){
"use strict";
var root=document.getElementById("bit-slider"),MAX=8,POINTS=801;
var distance=root.querySelector("#bit-distance"),width=root.querySelector("#bit-width");
function n(z,a,b){return Math.exp(-0.5*Math.pow((z-a)/b,2))/(b*Math.sqrt(2*Math.PI));}
function integral(f,reach){var sum=0,h=2*reach/4000,i;
 for(i=0;i<=4000;i++){sum+=f(-reach+i*h);}return sum*h;}
function cost(a,b,m,s){var sum=0,h=0.06,e,z,u,v,top;
 for(e=-7.2;e<7.23;e+=h){z=a+b*e;u=-0.5*Math.pow((z-m)/s,2);v=-0.5*Math.pow((z+m)/s,2);
  top=Math.max(u,v);
  sum-=h*n(e,0,1)*(top+Math.log(0.5*(Math.exp(u-top)+Math.exp(v-top)))-Math.log(s));}
 return sum-Math.log(b);}
function seek(a,b,m,s,moves){var step=0.5,now=cost(a,b,m,s),better,i,trial;
 while(step>1e-6){better=false;
  for(i=0;i<4;i++){
   var x=a+(i===0?step*b:i===1?-step*b:0)*moves,y=b*Math.exp(i===2?step:i===3?-step:0);
   trial=cost(x,y,m,s);
   if(trial<now-1e-12){a=x;b=y;now=trial;better=true;}}
  if(!better){step/=2;}}
 return [a,b,now];}
function numbers(m,s){
 var mix=function(z){return 0.5*(n(z,m,s)+n(z,-m,s));},reach=m+9*s;
 var entropy=integral(function(z){var p=mix(z);return p>0?-p*Math.log(p):0;},reach);
 return {overlap:integral(function(z){return Math.min(n(z,m,s),n(z,-m,s));},reach),
  shared_sd:s,marginal_sd:Math.sqrt(s*s+m*m),
  information:Math.max(0,entropy-0.5*Math.log(2*Math.PI*Math.E*s*s)),gap:m*m/(2*s*s)};}
function draw(){
 var m=distance.value/2,s=+width.value,found=numbers(m,s),key;
 var wide=seek(0,found.marginal_sd,m,s,0),narrow=seek(-m,s,m,s,1);
 var best=narrow[2]<wide[2]-1e-9?narrow:wide;
 var curves={posterior_a:function(z){return n(z,-m,s);},posterior_b:function(z){return n(z,m,s);},
  marginal:function(z){return 0.5*(n(z,m,s)+n(z,-m,s));},
  moment_matched:function(z){return n(z,0,found.marginal_sd);},
  mode_seeking:function(z){return n(z,best[0],best[1]);},shared:function(z){return n(z,0,s);}};
 var top=n(0,0,s);
 for(key in curves){
  var path="",i,z;
  for(i=0;i<POINTS;i++){z=-MAX+2*MAX*i/(POINTS-1);
   path+=(i?"L":"M")+(300+z*36).toFixed(1)+" "+(250-225*curves[key](z)/top).toFixed(1);}
  root.querySelector("[data-curve="+key+"]").setAttribute("d",path);}
 for(key in found){root.querySelector("[data-number="+key+"]").textContent=
  found[key].toFixed(found[key]<100?3:1);}
 root.querySelector("#bit-distance-value").textContent=(2*m).toFixed(1);
 root.querySelector("#bit-width-value").textContent=s.toFixed(2);
 root.querySelector("[data-plot]").setAttribute("aria-label","Two full posteriors with means "+
  (-m).toFixed(2)+" and "+m.toFixed(2)+" and width "+s.toFixed(2)+
  ". The shared posterior is centred at 0 with width "+s.toFixed(2)+
  "; the mixture has standard deviation "+found.marginal_sd.toFixed(2)+
  "; the mode-seeking Gaussian has mean "+best[0].toFixed(2)+" and width "+best[1].toFixed(2)+
  "; the conditioning gap is "+found.gap.toFixed(2)+" nats.");}
distance.addEventListener("input",draw);width.addEventListener("input",draw);draw();
})();
"""


def bit_slider(distance=4.0, width=0.5):
    """Return HTML with two sliders, distance and width, over the curves of the bit.

    Args:
        distance: between the two means at the start, in [0, 8].
        width: standard deviation of both full posteriors at the start, in [0.2, 2].

    Returns:
        A self-contained HTML string: style, controls, figure and script; nothing is loaded.

    Raises:
        ValueError: if a start value lies outside its slider.

    >>> page = bit_slider()
    >>> page.count('type="range"'), "http" in page
    (2, False)
    """
    distance = _within(distance, "distance", 0.0, 8.0)
    width = _within(width, "width", 0.2, 2.0)
    controls = _control("distance", "Distance between the two means", distance, (0, 8, 0.1))
    controls += _control("width", "Width of both (sd)", width, (0.2, 2, 0.05))
    rows = "".join(
        f'<div><dt>{html.escape(label)}</dt><dd data-number="{key}"></dd></div>'
        for key, label in QUANTITIES
    )
    return (
        f'<div id="bit-slider"><style>{_STYLE}</style>{controls}{_plot()}{_legend()}'
        f'<dl aria-live="polite">{rows}</dl>'
        "<noscript>This figure needs JavaScript; the figures above show two of its settings."
        f"</noscript></div><script>{_SCRIPT}</script>"
    )


def _within(value, name, low, high):
    value = float(_checks.finite_array(value, name, ndim=0))
    if not low <= value <= high:
        raise ValueError(
            f"{name} must lie between {low:g} and {high:g}, the ends of its slider, but is "
            f"{value:g}. Choose a start within them."
        )
    return value


def _control(key, label, value, limits):
    """One labelled range input with its output."""
    low, high, step = limits
    return (
        f'<div class="bit-row"><label for="bit-{key}">{label}</label>'
        f'<output id="bit-{key}-value" for="bit-{key}">{value:g}</output></div>'
        f'<input type="range" id="bit-{key}" min="{low}" max="{high}" step="{step}" '
        f'value="{value:g}">'
    )


def _plot():
    """The axes and one empty path per curve; text is large, since phones show it at half size."""
    ticks = "".join(
        f'<path d="M{300 + 36 * z} 250v6" stroke="#111"/>'
        f'<text x="{300 + 36 * z}" y="278" font-size="21" text-anchor="middle">{z}</text>'
        for z in range(-8, 9, 4)
    )
    paths = "".join(
        f'<path data-curve="{key}" fill="none" stroke="{COLOURS[key]}" stroke-width="3.5" '
        f'stroke-dasharray="{dashes}"/>'
        for key, _, dashes in CURVES
    )
    return (
        '<svg data-plot viewBox="0 0 600 312" role="img" aria-label="Curves of the bit">'
        f'<path d="M6 250H594" stroke="#111"/>{ticks}'
        '<text x="300" y="301" font-size="21" text-anchor="middle">'
        "z (all heights rescaled together)</text>"
        f"{paths}</svg>"
    )


def _legend():
    items = "".join(
        '<li><svg viewBox="0 0 40 12" aria-hidden="true"><path d="M0 6H40" '
        f'stroke="{COLOURS[key]}" stroke-width="4" stroke-dasharray="{dashes}"/></svg>'
        f"{html.escape(label)}</li>"
        for key, label, dashes in CURVES
    )
    return f"<ul>{items}</ul>"

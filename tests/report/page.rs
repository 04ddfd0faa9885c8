//! The report's page in a real browser: on a screen and on a phone, in the light and in the dark.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::browser;
use super::curves::{log, seeds};
use super::{Made, told};

/// Opens the page in a frame as wide as a phone or a screen, light or dark, and measures it. `luminance`
/// and `contrast` are those of WCAG 2.
const FRAME: &str = r#"<!DOCTYPE html><html><body><script>
function measure(frame) {
  const view = frame.contentWindow, page = frame.contentDocument, all = s => [...page.querySelectorAll(s)];
  const rgb = text => text.match(/[\d.]+/g).slice(0, 3).map(Number);
  const linear = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = c => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const contrast = (a, b) => { const [x, y] = [luminance(rgb(a)), luminance(rgb(b))];
    return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05); };
  const style = element => view.getComputedStyle(element);
  const back = element => { for (; element; element = element.parentElement) {
    const color = style(element).backgroundColor;
    if (!/, 0\)$/.test(color)) return color; } };
  const least = numbers => Math.min(...numbers);
  const shown = all("svg text").map(text => {
    const svg = text.closest("svg");
    return parseFloat(style(text).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width; });
  return {
    dark: view.matchMedia("(prefers-color-scheme: dark)").matches,
    background: luminance(rgb(style(page.body).backgroundColor)),
    overflow: page.documentElement.scrollWidth - view.innerWidth,
    chart_text: least(shown),
    text: least(all("p, td, th, h1, h2, h3, figcaption, summary, .value").map(e => parseFloat(style(e).fontSize))),
    text_contrast: least(all("p, td, th, h1, h2, h3, figcaption, span.soft, .value")
      .map(e => contrast(style(e).color, back(e)))),
    axis_contrast: least(all("svg text").map(e => contrast(style(e).fill, back(e)))),
    line_contrast: least(all(".line").map(e => contrast(style(e).stroke, back(e)))),
    charts: all("figure svg").length, lines: all(".line").length, bands: all(".band").length,
    marks: all(".mark").length,
    run_contrast: least([...Array(8).keys()].map(i => { const e = page.querySelector(".card h3");
      e.style.color = `var(--run${i})`;
      const found = contrast(style(e).color, back(e)); e.style.color = ""; return found; })),
    outside: all(".line, .band, .mark").filter(e => { const a = e.getBoundingClientRect(),
      b = e.closest("svg").getBoundingClientRect();
      return a.left < b.left || a.right > b.right || a.top < b.top || a.bottom > b.bottom; }).length,
    images: all("img").map(i => [i.naturalWidth, i.naturalHeight, i.getBoundingClientRect().width]),
  };
}
window.onload = () => {
  const results = [...document.querySelectorAll("iframe")].map(measure);
  document.body.innerHTML = "";
  document.body.appendChild(document.createElement("pre")).textContent = "measured " + JSON.stringify(results);
};
</script>
"#;

/// Width of a phone and of a screen in pixels.
const WIDTHS: [u32; 2] = [360, 1280];

/// Shows the page in frames: for each width in the light and in the dark.
fn measured(folder: &TempDir, page: &str) -> Option<Vec<Value>> {
    let quoted = page.replace('&', "&amp;").replace('"', "&quot;");
    let mut frames = FRAME.to_owned();
    for width in WIDTHS {
        for scheme in ["light", "dark"] {
            frames += &format!(
                "<iframe style=\"width: {width}px; height: 800px; border: 0; color-scheme: {scheme}\" \
                 srcdoc=\"{quoted}\"></iframe>\n"
            );
        }
    }
    let path = folder.path().join("frames.html");
    fs::write(&path, frames + "</body></html>").unwrap();
    let shown = browser::opened(folder.path(), &path)?;
    let (_, found) = shown.split_once("<pre>measured ").unwrap_or_else(|| panic!("{shown}"));
    let (found, _) = found.split_once("</pre>").unwrap();
    Some(serde_json::from_str(&found.replace("&lt;", "<").replace("&amp;", "&")).unwrap())
}

#[test]
fn a_browser_shows_the_page_on_a_phone_and_in_the_dark() {
    let folder = TempDir::new().unwrap();
    seeds(folder.path(), &[1, 2, 3]);
    let mut other = Made::new("gta_vit", Some("mic")).config;
    other["optimizer"]["lr"] = json!(1e-4);
    log(&folder.path().join("other"), &other, [0.1, 0.5, 0.45], 0.02);
    let pictures = folder.path().join("other/pictures");
    fs::create_dir(&pictures).unwrap();
    for (name, width) in [("01", 1536), ("02", 300)] {
        image::RgbImage::from_fn(width, 100, |x, y| image::Rgb([x as u8, y as u8, 7]))
            .save(pictures.join(format!("{name}.png")))
            .unwrap();
    }
    let args = ["mine_seed1", "mine_seed2", "mine_seed3", "other", "--html", "a.html"];
    told(folder.path(), &args);
    let page = fs::read_to_string(folder.path().join("a.html")).unwrap();
    for expected in [
        "<h1>2 runs</h1>",
        "<td>optimizer.lr</td><td>0.0001</td><td>0.00006</td>",
        "<td>Abacus &lt;9&gt;, 2 cores</td><td>0.1.0 (abc1234)</td><td>2 min 30 s</td>",
        "validation image 01, prediction, label",
        "iteration 300: 42.0 ± 1.0",
    ] {
        assert!(page.contains(expected), "{expected} in\n{page}");
    }
    // The page loads nothing from elsewhere.
    let without_images = page.replace("src=\"data:image/jpeg;base64,", "");
    for foreign in ["http:", "https:", "src=", "<script", "@import", "url("] {
        assert!(!without_images.contains(foreign), "{foreign}");
    }
    let Some(frames) = measured(&folder, &page) else { return };
    assert_eq!(frames.len(), 4);
    for (i, frame) in frames.iter().enumerate() {
        let number = |key: &str| frame[key].as_f64().unwrap_or_else(|| panic!("{key}: {frame}"));
        let (width, dark) = (f64::from(WIDTHS[i / 2]), i % 2 == 1);
        assert_eq!(frame["dark"], dark, "{frame}");
        assert!((number("background") < 0.05) == dark, "{frame}");
        // Nothing but tables in their own frames is wider than the screen.
        assert!(number("overflow") <= 0.0, "{width}: {frame}");
        assert!(number("chart_text") >= 9.0, "{width}: {frame}");
        assert!(number("text") >= 12.0, "{frame}");
        assert!(number("text_contrast") >= 4.5, "{frame}");
        assert!(number("axis_contrast") >= 4.5, "{frame}");
        assert!(number("line_contrast") >= 3.0, "{frame}");
        // The names of runs in the table of methods have their colors.
        assert!(number("run_contrast") >= 4.5, "{frame}");
        // mIoU, three losses, confidence, rate, learning rate, memory, and 19 classes; a line for the
        // three seeds and one for the other run.
        assert_eq!(frame["charts"], 8 + 19, "{frame}");
        assert_eq!(frame["lines"], 2 * 27, "{frame}");
        // The seeds differ in their losses and IoU.
        assert_eq!(frame["bands"], 4 + 19, "{frame}");
        assert_eq!(frame["marks"], 2 * 3 * 20, "{frame}");
        assert_eq!(frame["outside"], 0, "{frame}");
        let images = frame["images"].as_array().unwrap();
        assert_eq!(images.len(), 2, "{frame}");
        assert_eq!((&images[0][0], &images[0][1]), (&json!(1200), &json!(78)), "{frame}");
        assert_eq!((&images[1][0], &images[1][1]), (&json!(300), &json!(100)), "{frame}");
        assert!(images.iter().all(|image| image[2].as_f64() <= Some(width)), "{frame}");
    }
}

//! The figures as files for papers: SVG with everything written out, PNG of the same, and CSV beside.

use super::chart::Medium;
use super::figures::{self, View};
use super::input::{ReportError, ReportInput};
use resvg::{tiny_skia, usvg};
use std::sync::Arc;

/// Width of a PNG in pixels: a column of 84 mm at 600 dots an inch.
const PIXELS: u32 = 1984;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FigureFormat {
    Svg,
    Png,
}

/// A file of a figure.
#[derive(Debug, Clone, PartialEq)]
pub struct FigureFile {
    /// Such as `loss.svg`; a figure with several views has a file for each, such as `residuals-normal.svg`.
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Every figure of the report in these formats, on white and readable at a column's width (84 mm), and its numbers as CSV.
/// SVG and CSV of the same study are the same bytes; PNG depends on the fonts installed.
///
/// # Errors
/// As [`render`](super::render); a PNG without a font to write with.
pub fn figures(study: &ReportInput, formats: &[FigureFormat]) -> Result<Vec<FigureFile>, ReportError> {
    super::check(study)?;
    let options = if formats.contains(&FigureFormat::Png) { Some(options()?) } else { None };
    let mut files = Vec::new();
    for figure in figures::all(study) {
        for View { name: view, drawing } in &figure.views {
            let name = match figure.views.len() {
                1 => figure.id.to_string(),
                _ => format!("{}-{view}", figure.id),
            };
            let svg = drawing.svg(Medium::Paper);
            if let Some(options) = &options {
                let bytes = png(&svg, options)
                    .map_err(|reason| ReportError::Image { figure: name.clone(), reason })?;
                files.push(FigureFile { name: format!("{name}.png"), bytes });
            }
            if formats.contains(&FigureFormat::Svg) {
                files.push(FigureFile { name: format!("{name}.svg"), bytes: svg.into_bytes() });
            }
        }
        files.push(FigureFile { name: format!("{}.csv", figure.id), bytes: figure.csv.into_bytes() });
    }
    Ok(files)
}

/// The fonts of this machine, one of them as the sans-serif one.
fn options() -> Result<usvg::Options<'static>, ReportError> {
    let mut fonts = usvg::fontdb::Database::new();
    fonts.load_system_fonts();
    let known = ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans", "Noto Sans"];
    let has = |name: &str| fonts.faces().any(|f| f.families.iter().any(|(family, _)| family == name));
    let family = match known.into_iter().find(|name| has(name)) {
        Some(name) => name.to_string(),
        None => fonts
            .faces()
            .find_map(|f| f.families.first().map(|(family, _)| family.clone()))
            .ok_or(ReportError::NoFont)?,
    };
    fonts.set_sans_serif_family(&family);
    Ok(usvg::Options { font_family: family, fontdb: Arc::new(fonts), ..usvg::Options::default() })
}

fn png(svg: &str, options: &usvg::Options<'_>) -> Result<Vec<u8>, String> {
    let tree = usvg::Tree::from_str(svg, options).map_err(|e| e.to_string())?;
    let scale = PIXELS as f32 / tree.size().width();
    let height = (tree.size().height() * scale).round() as u32;
    let mut pixels = tiny_skia::Pixmap::new(PIXELS, height).ok_or("it has no size")?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| e.to_string())
}

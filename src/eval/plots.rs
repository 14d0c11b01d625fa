//! Plots of the reports, as SVG.

use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::prelude::*;

/// A curve with its name in the legend.
pub struct Curve {
    /// Shown in the legend.
    pub name: String,
    /// Points, in the order they are joined.
    pub points: Vec<(f64, f64)>,
}

/// What stands at the axes.
pub struct Labels {
    /// Above the plot.
    pub title: String,
    /// Below.
    pub x: String,
    /// At the left.
    pub y: String,
}

const SIZE: (u32, u32) = (900, 560);
const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44), RGBColor(148, 103, 189)];

/// Curves over a logarithmic rate, from `x_min` to 1; y from `y.0` to `y.1`.
pub fn rates(
    file: &Path,
    labels: &Labels,
    x_min: f64,
    y: (f64, f64),
    curves: &[Curve],
) -> anyhow::Result<()> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    let draw = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(&labels.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d((x_min..1.0).log_scale(), y.0..y.1)?;
        chart
            .configure_mesh()
            .x_desc(&labels.x)
            .y_desc(&labels.y)
            .x_label_formatter(&|x| format!("{x:.0e}"))
            .y_label_formatter(&|y| format!("{y:.3}"))
            .draw()?;
        for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
            let points = curve.points.iter().filter(|point| point.0 >= x_min).copied();
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(&curve.name)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        }
        finish_legend(&mut chart)?;
        root.present()?;
        Ok(())
    };
    draw().map_err(|error| anyhow!("{error}")).with_context(|| file.display().to_string())
}

/// Curves over a linear axis.
pub fn lines(file: &Path, labels: &Labels, x: (f64, f64), curves: &[Curve]) -> anyhow::Result<()> {
    let highest = curves.iter().flat_map(|curve| &curve.points).map(|p| p.1).fold(0.0, f64::max);
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    let draw = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(&labels.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d(x.0..x.1, 0.0..highest.max(1e-9) * 1.05)?;
        chart.configure_mesh().x_desc(&labels.x).y_desc(&labels.y).draw()?;
        for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2)))?
                .label(&curve.name)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        }
        finish_legend(&mut chart)?;
        root.present()?;
        Ok(())
    };
    draw().map_err(|error| anyhow!("{error}")).with_context(|| file.display().to_string())
}

fn finish_legend<'a, 'b, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>>
where
    X: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
    'b: 'a,
{
    chart
        .configure_series_labels()
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE.mix(0.8))
        .draw()
}

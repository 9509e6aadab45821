//! Places for the nodes of a graph: layers by longest path (Sugiyama et al. 1981), and within a layer each node as near
//! to the mean of its neighbours as its width allows.

/// Width and height in pixels at zoom 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    pub width: f64,
    pub height: f64,
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Left upper corners, by node.
    pub corners: Vec<(f64, f64)>,
    pub whole: Size,
}

/// Free space between neighbours and between layers.
#[derive(Clone, Copy, Debug)]
pub struct Gaps {
    pub beside: f64,
    pub below: f64,
}

/// Sweeps over all layers. A few settle most; more change little.
const SWEEPS: usize = 8;

/// A layout of boxes of these sizes. Edges go from lower to higher indices; others are left out of account.
pub fn layered(sizes: &[Size], edges: &[(usize, usize)], gaps: Gaps) -> Layout {
    let mut operands: Vec<Vec<usize>> = vec![Vec::new(); sizes.len()];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); sizes.len()];
    for &(from, to) in edges.iter().filter(|(from, to)| from < to) {
        operands[to].push(from);
        users[from].push(to);
    }
    let layer_of = layer_numbers(&operands, &users);
    let n_layers = layer_of.iter().max().map_or(0, |l| l + 1);
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); n_layers];
    for (n, &l) in layer_of.iter().enumerate() {
        layers[l].push(n);
    }

    // Centres from left to right. At first each layer is packed around 0, in the order of indices.
    let mut centre = vec![0.0; sizes.len()];
    for layer in &layers {
        let wish = vec![0.0; layer.len()];
        spread(layer, &wish, sizes, gaps.beside, &mut centre);
    }
    for sweep in 0..SWEEPS {
        let last = sweep + 1 == SWEEPS;
        let down = sweep % 2 == 0;
        let order: Vec<usize> = if down { (0..n_layers).collect() } else { (0..n_layers).rev().collect() };
        for l in order {
            let wish = |n: usize| {
                let (first, second) =
                    if down { (&operands[n], &users[n]) } else { (&users[n], &operands[n]) };
                let both = [first.as_slice(), second.as_slice()];
                let near: &[&[usize]] = if last {
                    &both
                } else if first.is_empty() {
                    &both[1..]
                } else {
                    &both[..1]
                };
                mean(n, near, &centre, &layer_of)
            };
            let mut wished: Vec<(f64, usize)> = layers[l].iter().map(|&n| (wish(n), n)).collect();
            wished.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            layers[l] = wished.iter().map(|w| w.1).collect();
            let wish: Vec<f64> = wished.iter().map(|w| w.0).collect();
            spread(&layers[l], &wish, sizes, gaps.beside, &mut centre);
        }
    }
    corners(&layers, sizes, gaps, &centre)
}

/// Every node one layer below the lowest of its operands; but where that makes edges no longer in sum, just above its
/// first user. What follows from one input or constant moves along and does not count.
fn layer_numbers(operands: &[Vec<usize>], users: &[Vec<usize>]) -> Vec<usize> {
    let mut layer = vec![0; operands.len()];
    let mut light = vec![false; operands.len()];
    for n in 0..operands.len() {
        layer[n] = operands[n].iter().map(|&o| layer[o] + 1).max().unwrap_or(0);
        light[n] = operands[n].len() <= 1 && operands[n].iter().all(|&o| light[o]);
    }
    for n in (0..operands.len()).rev() {
        let held = operands[n].iter().filter(|&&o| !light[o]).count();
        if let Some(first) = users[n].iter().map(|&u| layer[u]).min()
            && held <= users[n].len()
        {
            layer[n] = first - 1;
        }
    }
    layer
}

/// Mean centre of the neighbours, near layers counting more.
fn mean(n: usize, near: &[&[usize]], centre: &[f64], layer_of: &[usize]) -> f64 {
    let (mut sum, mut weights) = (0.0, 0.0);
    for &m in near.iter().copied().flatten() {
        let weight = 1.0 / layer_of[n].abs_diff(layer_of[m]).max(1) as f64;
        sum += weight * centre[m];
        weights += weight;
    }
    if weights == 0.0 { centre[n] } else { sum / weights }
}

/// Centres as near as possible to the wishes, by least squares, without overlap and in this order: isotonic regression
/// by pooling of neighbours (Ayer et al. 1955).
fn spread(layer: &[usize], wish: &[f64], sizes: &[Size], beside: f64, centre: &mut [f64]) {
    // With the least distances taken off, the order is all that is left to keep.
    let mut offsets = Vec::with_capacity(layer.len());
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    let mut offset = 0.0;
    for (k, &n) in layer.iter().enumerate() {
        if k > 0 {
            offset += (sizes[layer[k - 1]].width + sizes[n].width) / 2.0 + beside;
        }
        offsets.push(offset);
        blocks.push((wish[k] - offset, 1));
        while let [.., (a, na), (b, nb)] = blocks[..]
            && a > b
        {
            blocks.truncate(blocks.len() - 2);
            blocks.push(((a * na as f64 + b * nb as f64) / (na + nb) as f64, na + nb));
        }
    }
    let places = blocks.into_iter().flat_map(|(x, n)| std::iter::repeat_n(x, n));
    for ((&n, offset), place) in layer.iter().zip(offsets).zip(places) {
        centre[n] = place + offset;
    }
}

/// Corners from centres, with the left edge of everything at 0, and layers one below the other.
fn corners(layers: &[Vec<usize>], sizes: &[Size], gaps: Gaps, centre: &[f64]) -> Layout {
    let left = |n: usize| centre[n] - sizes[n].width / 2.0;
    let least = (0..sizes.len()).map(left).fold(f64::INFINITY, f64::min);
    let mut corners = vec![(0.0, 0.0); sizes.len()];
    let mut whole = Size { width: 0.0, height: 0.0 };
    let mut y = 0.0;
    for layer in layers {
        let height = layer.iter().map(|&n| sizes[n].height).fold(0.0, f64::max);
        for &n in layer {
            let x = left(n) - least;
            corners[n] = (x, y + (height - sizes[n].height) / 2.0);
            whole.width = whole.width.max(x + sizes[n].width);
        }
        whole.height = y + height;
        y += height + gaps.below;
    }
    Layout { corners, whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAPS: Gaps = Gaps { beside: 10.0, below: 20.0 };

    fn boxes(n: usize) -> Vec<Size> {
        (0..n).map(|k| Size { width: 20.0 + 7.0 * (k % 4) as f64, height: 10.0 }).collect()
    }

    #[test]
    fn what_is_read_stands_above_what_reads_it_and_nothing_overlaps() {
        for n in [1, 2, 30, 400] {
            let sizes = boxes(n);
            let edges: Vec<(usize, usize)> =
                (1..n).flat_map(|k| [(k * 7 % k, k), (k / 2, k)]).filter(|(a, b)| a < b).collect();
            let layout = layered(&sizes, &edges, GAPS);
            for &(from, to) in &edges {
                assert!(layout.corners[from].1 + 10.0 < layout.corners[to].1, "{from} to {to}");
            }
            for a in 0..n {
                let (x, y) = layout.corners[a];
                assert!(
                    x >= 0.0 && x + sizes[a].width <= layout.whole.width && y + 10.0 <= layout.whole.height
                );
                for b in 0..a {
                    let (u, v) = layout.corners[b];
                    let apart = x + sizes[a].width + 9.99 <= u || u + sizes[b].width + 9.99 <= x;
                    assert!(apart || y != v, "{a} and {b}");
                }
            }
        }
    }

    #[test]
    fn neighbours_attract_and_inputs_stand_by_their_users() {
        // Two chains that share nothing, written alternately: each is straight.
        let edges: Vec<(usize, usize)> = (0..8).map(|k| (k, k + 2)).collect();
        let layout = layered(&[Size { width: 20.0, height: 10.0 }; 10], &edges, GAPS);
        for &(from, to) in &edges {
            assert!((layout.corners[from].0 - layout.corners[to].0).abs() < 1e-6, "{from} to {to}");
        }
        // An input that only the end of a chain reads is next to the end.
        let layout = layered(&boxes(5), &[(0, 2), (2, 3), (3, 4), (1, 4)], GAPS);
        assert_eq!(layout.corners[1].1, layout.corners[3].1);
        assert_eq!(layered(&[], &[], GAPS).whole, Size { width: 0.0, height: 0.0 });
    }
}

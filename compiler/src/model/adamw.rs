//! Clipping by global norm and AdamW with decoupled weight decay, as graph operations
//! (Loshchilov & Hutter 2019; decay first, then the Adam update; eps outside the root).

use super::params::Param;
use crate::config::AdamW;
use crate::graph::{Binary, Graph, Role, TensorType, Unary, Value};
use isoflop_kernels::program::Init;

/// Scalars that change every step.
#[derive(Clone, Copy)]
pub struct ScheduleInputs {
    lr: Value,
    bias_correction1: Value,
    bias_correction2: Value,
}

pub fn schedule_inputs(g: &mut Graph) -> ScheduleInputs {
    let mut scalar = |name: &str| g.new_input(name, TensorType::f32(&[]), Role::Data);
    ScheduleInputs {
        lr: scalar("lr"),
        bias_correction1: scalar("bias_correction1"),
        bias_correction2: scalar("bias_correction2"),
    }
}

/// First and second moments of each parameter.
pub fn moment_inputs(g: &mut Graph, decls: &[Param]) -> Vec<[Value; 2]> {
    decls
        .iter()
        .map(|d| {
            ["adam_m", "adam_v"].map(|m| {
                let ty = TensorType::f32(&d.shape);
                g.new_input(&format!("{m}.{}", d.name), ty, Role::State(Init::Zeros))
            })
        })
        .collect()
}

/// Adds the update of every parameter and the outputs `grad_norm`, `param.*`, `adam_m.*`, `adam_v.*`.
pub fn update(
    g: &mut Graph,
    cfg: &AdamW,
    s: ScheduleInputs,
    decls: &[Param],
    params: &[Value],
    moments: &[[Value; 2]],
    grads: &[Value],
) {
    g.set_scope("clip");
    let mut sum: Option<Value> = None;
    for &grad in grads {
        let squares = g.mul(grad, grad);
        let axes: Vec<usize> = (0..g.ty(grad).rank()).collect();
        let part = g.reduce_sum(squares, &axes);
        sum = Some(sum.map_or(part, |s| g.add2(s, part)));
    }
    let Some(sum) = sum else { return };
    let norm = g.unary(Unary::Sqrt, sum);
    g.output("grad_norm", norm);
    let tiny = g.constant_like(1e-6, norm);
    let floored = g.add2(norm, tiny);
    let limit = g.constant_like(cfg.clip, norm);
    let ratio = g.div(limit, floored);
    let one = g.constant_like(1.0, norm);
    let clip = g.binary(Binary::Min, ratio, one);

    g.set_scope("adamw");
    let step_size = g.div(s.lr, s.bias_correction1);
    let second = g.div(one, s.bias_correction2);
    let decay = g.scale(s.lr, cfg.weight_decay);
    let keep = g.sub(one, decay);
    let [b1, b2] = cfg.betas;
    for (((d, &p), &[m, v]), &grad) in decls.iter().zip(params).zip(moments).zip(grads) {
        g.set_scope(&format!("adamw.{}", d.name));
        let shape = d.shape.as_slice();
        let clip = g.broadcast(clip, &[], shape);
        let grad = g.mul(grad, clip);
        let old = g.scale(m, b1);
        let new = g.scale(grad, 1.0 - b1);
        let m = g.add2(old, new);
        let old = g.scale(v, b2);
        let squares = g.mul(grad, grad);
        let new = g.scale(squares, 1.0 - b2);
        let v = g.add2(old, new);
        let second = g.broadcast(second, &[], shape);
        let corrected = g.mul(v, second);
        let root = g.unary(Unary::Sqrt, corrected);
        let eps = g.constant_like(cfg.eps, root);
        let root = g.add2(root, eps);
        let step_size = g.broadcast(step_size, &[], shape);
        let numerator = g.mul(m, step_size);
        let change = g.div(numerator, root);
        let mut kept = p;
        if d.decays && cfg.weight_decay != 0.0 {
            let keep = g.broadcast(keep, &[], shape);
            kept = g.mul(p, keep);
        }
        let p = g.sub(kept, change);
        g.output(&format!("param.{}", d.name), p);
        g.output(&format!("adam_m.{}", d.name), m);
        g.output(&format!("adam_v.{}", d.name), v);
    }
}

"""Diffusion and flow transformers: any number of modalities in one network, each with a noise level of its own."""

from mmgen_jax.diffusion.dispersive import Dispersive
from mmgen_jax.diffusion.dit import DiT
from mmgen_jax.diffusion.dpm_solver import DPMSolver
from mmgen_jax.diffusion.editing import edit, inpaint
from mmgen_jax.diffusion.edm import EDM
from mmgen_jax.diffusion.grids import KarrasGrid, LogSNRGrid, ShiftedGrid, UniformGrid
from mmgen_jax.diffusion.guidance import Guidance
from mmgen_jax.diffusion.learned import VDM
from mmgen_jax.diffusion.likelihood import bits_per_dimension, log_likelihood
from mmgen_jax.diffusion.mean_flow import MeanFlow
from mmgen_jax.diffusion.model import Flow
from mmgen_jax.diffusion.objective import FlowMatching
from mmgen_jax.diffusion.paths import DDPM, RectifiedFlow
from mmgen_jax.diffusion.samplers import DDIM, SDE, Ancestral, Churn, Euler, Heun, Renoise
from mmgen_jax.diffusion.self_flow import SelfFlow
from mmgen_jax.diffusion.shortcut import Shortcut
from mmgen_jax.diffusion.times import Times
from mmgen_jax.diffusion.weights import ELBO, LogitNormal, MinSNR, Mode, Sigmoid, Uniform, UniformTimes

__all__ = [
    "Ancestral",
    "Churn",
    "DDIM",
    "DDPM",
    "DPMSolver",
    "DiT",
    "Dispersive",
    "EDM",
    "ELBO",
    "Euler",
    "Flow",
    "FlowMatching",
    "Guidance",
    "Heun",
    "KarrasGrid",
    "LogSNRGrid",
    "LogitNormal",
    "MeanFlow",
    "MinSNR",
    "Mode",
    "RectifiedFlow",
    "Renoise",
    "SDE",
    "SelfFlow",
    "ShiftedGrid",
    "Shortcut",
    "Sigmoid",
    "Times",
    "Uniform",
    "UniformGrid",
    "UniformTimes",
    "VDM",
    "bits_per_dimension",
    "edit",
    "inpaint",
    "log_likelihood",
]

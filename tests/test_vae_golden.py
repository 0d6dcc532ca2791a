"""The objectives against the numbers of a reference implementation: losses, terms, posteriors, gradients, likelihoods.

Every size, constant and hyper-parameter is read from the file. `--golden DIR` takes other files of the same format.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vae_cases import Case, Hidden, assert_close, assert_gradients, decoder, encoder, heads, layer, of_models

from mmgen_jax.types import Batch
from mmgen_jax.vae import (
    CMVAE,
    CRMVAE,
    DMVAE,
    JMVAE,
    JNF,
    MMVAE,
    MVAE,
    MVTCAE,
    TELBO,
    VAE,
    JointEncoder,
    MixtureOfProducts,
    MMVAEPlus,
    MoPoE,
    ProductOfExperts,
    Ramp,
)
from mmgen_jax.vae.latent import Noise

FAMILIES = {"laplace_with_softmax": "laplace", "normal": "normal", "normal_with_softplus": "normal_softplus"}
STAGED, MIXTURES = ("TELBO", "JNF"), ("MMVAE", "MMVAEPlus", "CMVAE")
WITH_JOINT_ENCODER = ("JMVAE", *STAGED)
reads = of_models(*WITH_JOINT_ENCODER, *MIXTURES, "MVAE", "MoPoE", "MVTCAE", "DMVAE", "CRMVAE")


class Joint(nn.Module):
    """The reference's joint encoder: all modalities side by side through one hidden layer."""

    width: int
    outputs: int

    @nn.compact
    def __call__(self, values, present):
        x = jnp.concatenate([values[name] for name in sorted(values)], axis=-1)
        return nn.Dense(self.outputs, name="out", param_dtype=x.dtype)(Hidden(self.width, name="hidden_layer")(x))


def private_sizes(case) -> dict[str, int]:
    hp = case.hp
    return dict.fromkeys(case.names, hp["private_dim"]) if "private_dim" in hp else hp.get("private") or {}


def objective(case, eps):
    hp, name = case.hp, case.model_name
    if name in WITH_JOINT_ENCODER:
        network = Joint(hp["hidden"], 2 * hp["latent_dim"])
        fusion = JointEncoder(network=network)
    if name == "JMVAE":
        ramp = (lambda top: Ramp(0.0, top, hp["warmup"])) if hp["warmup"] else float
        return JMVAE(alpha=ramp(hp["alpha"]), beta=ramp(hp["beta"]), fusion=fusion)
    if name == "TELBO":
        return TELBO(first_stage=hp["warmup"], gammas=hp["gamma_factors"], fusion=fusion)
    if name == "JNF":
        return JNF(
            beta=hp["beta"], first_stage=hp["warmup"], fusion=fusion,
            blocks=hp.get("made_blocks", 2), layers=hp.get("made_hidden_layers", 1), hidden=hp.get("made_hidden", 8),
        )  # fmt: skip
    if name == "MVAE":
        return MVAE(
            beta=hp["beta_effective"], singles=hp["use_subsampling"], subsets=hp["k"] * hp["use_subsampling"],
            mean_of_rows=True,
        )  # fmt: skip
    if name == "MoPoE":
        subsets = tuple(tuple(s.split("_")) for s in case.meta["subsets"])
        fusion = MixtureOfProducts(subsets=subsets, eps=eps)
        return MoPoE(beta=hp["beta"], beta_private=hp["beta_style"], fusion=fusion)
    if name == "MVTCAE":
        return MVTCAE(alpha=hp["alpha"], beta=hp["beta"], fusion=ProductOfExperts(eps=eps))
    if name == "DMVAE":
        return DMVAE(beta=hp["beta"], betas=hp["private_betas"])
    if name == "CRMVAE":
        return CRMVAE(beta=hp["beta"], fusion=ProductOfExperts(eps=eps))
    common = {"samples": hp["K"], "estimator": hp["loss"].split("_")[0], "beta": hp["beta"]}
    common["family"] = FAMILIES[hp["dist"]]
    if name == "MMVAE":
        return MMVAE(learn_prior=hp["learn_prior"], **common)
    if name == "MMVAEPlus":
        return MMVAEPlus(learn_prior=hp["learn_shared_prior"], **common)
    return CMVAE(clusters=hp["number_of_clusters"], **common)


def vae(case, eps=None) -> VAE:
    weights = case.hp["lambda_factors"] if case.model_name == "TELBO" else case.hp["rescale"]
    return VAE(
        modalities=case.modalities(),
        latent=case.hp["latent_dim"],
        private=private_sizes(case),
        weights=weights,
        objective=objective(case, case.hp.get("poe_eps", 0.0) if eps is None else eps),
        dtype="float64",
    )


def params(case, flat) -> dict:
    fusion = {}
    if case.model_name in WITH_JOINT_ENCODER:
        fusion = {"hidden_layer": {"hidden": layer(flat, "joint_encoder.hidden")}, "out": heads(flat, "joint_encoder")}
    return {
        "encoders": {m: encoder(flat, f"encoders.{m}") if f"encoders.{m}.mu.bias" in flat else {} for m in case.names},
        "decoders": {m: decoder(flat, f"decoders.{m}") for m in case.names},
        "fusion": fusion,
        "objective": objective_params(case, flat),
    }


def objective_params(case, flat) -> dict:
    """Learned priors and flows. Frozen parameters of the reference, all zero, are constants of ours."""
    name, out = case.model_name, {}
    if name == "MMVAE" and case.hp["learn_prior"]:
        out["prior"] = flat["prior_log_var"][0]
    if name == "MMVAEPlus":
        out["auxiliary"] = {m: flat[f"logvars_priors.{m}"][0] for m in case.names}
        if case.hp["learn_shared_prior"]:
            out["prior"] = flat["logvars_priors.shared"][0]
    if name == "CMVAE":
        clusters = range(case.hp["number_of_clusters"])
        out["auxiliary"] = {m: flat[f"r_logvars_priors.{m}"][0] for m in case.names}
        out["means"] = np.concatenate([flat[f"mean_clusters.{c}"] for c in clusters])
        out["logits"] = flat["_pc_params"]
    if name == "JNF":
        flow = vae(case).objective
        latent, flows = case.hp["latent_dim"], {}
        for i, mask in enumerate(flow._flow(latent).masks()):
            shape = (len(case.names), flow.blocks, *mask.shape)
            flows[f"layer_{i}"] = {"kernel": np.zeros(shape), "bias": np.zeros((*shape[:2], shape[-1]))}
            for m, b in np.ndindex(shape[:2]) if any(k.startswith("flows.") for k in flat) else ():
                for leaf in ("kernel", "bias"):
                    flows[f"layer_{i}"][leaf][m, b] = flat[f"flows.{case.names[m]}.net.{b}.net.{2 * i}.{leaf}"]
        out["flows"] = flows
    return out


def noise(case) -> Noise:
    drawn, names, name = case.noise(), case.names, case.model_name
    choice = np.zeros((1, case.size))
    private = {}
    if name in ("JMVAE", "JNF"):
        z = drawn["z_joint"]
    elif name == "TELBO":
        z = np.stack([drawn.get(f"z_{m}", drawn["z_joint"]) for m in names])
    elif name == "MVAE":
        z = np.zeros((len(case.meta["subsets"]), case.size, case.hp["latent_dim"]))
        for i, subset in enumerate(case.meta["subsets"]):
            z[i, case.file[f"aux/rows/{subset}"]] = drawn[f"z_{subset}"]
        between = max(1, 2 ** len(names) - 2 - len(names))
        choice = -np.arange(between)[:, None].astype(float)
        for rank, index in enumerate(np.ravel(drawn.get("subset_index", ()))):
            choice[int(index)] = 1e9 - rank
    elif name == "DMVAE":
        z = np.stack([drawn[f"{part}/z"] for part in ("joint", *names)])
        private = {m: np.stack([drawn[f"{part}/w_{m}"] for part in ("joint", *names)]) for m in names}
    elif name == "CRMVAE":
        z = np.stack([drawn["z"], *(drawn[f"z_{m}"] for m in names)])
    elif name in MIXTURES:
        letter = "z" if name == "MMVAE" else "u"
        rest = np.zeros((case.hp["K"], case.size, case.hp["latent_dim"]))
        z = np.stack([drawn.get(f"{letter}_{m}", rest) for m in names])
        for j in private_sizes(case):
            private[j] = np.stack([drawn[f"w_{m}" if m == j else f"r_{m}_{j}"] for m in names])
    else:
        z = drawn["z"]
        private = {m: drawn[f"w_{m}"] for m in private_sizes(case)}
        if "aux/selected" in case.file:  # the component is given, not drawn: no Gumbel noise can outbid 1e9
            choice = 1e9 * (np.arange(len(case.meta["subsets"]))[:, None] == case.file["aux/selected"])
    return Noise(z=z, private=private, choice=choice)


def batch(case) -> Batch:
    """Modalities absent from the whole batch are dropped by the reference, and missing for us."""
    batch = case.batch()
    present = {m: there & (m in case.hp.get("present", case.names)) for m, there in batch.present.items()}
    return Batch(batch.values, present).masked()


def step(case):
    """The schedules' step: the reference counts epochs, and is in its first stage up to the epoch `warmup`."""
    epoch = case.hp.get("epoch", 0)
    return jnp.asarray(epoch - 1 if case.model_name in STAGED else epoch)


@pytest.fixture
def case(golden_vae):
    with jax.enable_x64(True):
        yield Case(golden_vae)


def test_loss_and_gradients(case):
    model, weights, data, drawn = vae(case), params(case, case.unpack("w")), batch(case), noise(case)

    def mean_loss(weights):
        return model.loss(weights, data, drawn, step(case))[0].mean()

    loss, grads = jax.jit(jax.value_and_grad(mean_loss))(weights)
    assert_close(loss, case.expected_loss())
    jax.tree.map(assert_gradients, grads, params(case, case.expected_gradients()))
    if "loss_no_eps" in case.file:
        exact = vae(case, 0.0).loss(weights, data, drawn, step(case))[0].mean()
        scale = case.size if case.meta["reduction"] == "sum" else 1
        assert_close(exact, case.file["loss_no_eps"] / scale)


def test_terms(case):
    model, weights, data, drawn = vae(case), params(case, case.unpack("w")), batch(case), noise(case)
    file, name = {k.removeprefix("term/"): v for k, v in case.file.items() if k.startswith("term/")}, case.model_name
    if name in MIXTURES:
        return check_log_weights(case, model, weights, data, drawn, file)
    terms = jax.jit(model.loss)(weights, data, drawn, step(case))[1]
    if name == "MVAE":
        for m, row in zip(case.names, terms["nll"], strict=True):
            assert_close(row.mean(), sum(of_set(file, s, m) for s in case.meta["subsets"] if m in s.split("_")))
        return assert_close(terms["kl"].mean(), sum(file[f"kl/{s}"].mean() for s in case.meta["subsets"]))
    expected = {
        "nll": file.get("nll", file.get("nll_joint")),
        "nll_experts": file.get("nll_uni"),
        "kl": file.get("kl_prior"),
        "kl_experts": file.get("kl_uni"),
    }
    if name == "MoPoE":
        expected |= {"kl": (case.file["aux/weights"] * file["kl_subset"]).sum(0), "kl_private": file.get("kl_style")}
    if name == "DMVAE":
        counted = np.concatenate([np.ones((1, case.size)), case.there()])  # a missing expert has no bound
        nll, kl = (file["nll"] * counted[:, None]).sum(0), (file["kl_shared"] * counted).sum(0)
        expected |= {"nll": nll, "kl": kl, "kl_private": file["kl_style"]}
    if name == "TELBO" and file["kl_prior"].ndim == 1:
        expected["kl"] = np.broadcast_to(file["kl_prior"], terms["kl"].shape)
    if "log_q" in file:
        expected = {"nll_code": -file["log_q"]}
    checked = {term for term, value in expected.items() if value is not None and term in terms}
    for term in checked:
        assert_close(terms[term], expected[term])
    assert "nll" in checked or "nll_code" in checked


def of_set(file, subset, m):
    """The mean over its rows of one modality's part of one bound of MVAE."""
    return file[f"nll/{subset}"][subset.split("_").index(m)].mean()


def check_log_weights(case, model, weights, data, drawn, file):
    inference, networks = model.encode(weights, data), model.networks(weights, data, step(case))
    codes = model.objective.codes(inference, drawn)
    lw, parts = model.objective.log_weights(weights["objective"], inference, networks, codes, drawn, step(case))
    kept = [case.names.index(m) for m in case.hp.get("present", case.names)]
    there = case.there()[kept]
    both = there[:, None, None] & there[None, :, None]  # what is missing is no expert and explains nothing
    ours = -parts["log_likelihood"].swapaxes(0, 1)[np.ix_(kept, kept)]
    assert_close(np.where(both, ours, 0), np.where(both, file["nll"], 0))
    expected = {
        "log_p": file["log_pz"] if "log_pz" in file else file["log_pu"] + file["log_pw"],
        "log_q": file["log_qz"] if "log_qz" in file else file["log_qu"],
        "log_q_private": file.get("log_qw", np.zeros(())),
    }
    for part, value in (*((parts[name], value) for name, value in expected.items()), (lw, file["lw"])):
        ours = np.where(there[:, None], part[np.array(kept)], 0)
        assert_close(ours, np.broadcast_to(np.where(there[:, None], value, 0), ours.shape))


def test_posteriors(case):
    model, weights, data = vae(case), params(case, case.unpack("w")), batch(case)
    inference = model.encode(weights, data)
    kept = [case.names.index(m) for m in case.hp.get("present", case.names)]
    there = np.asarray(inference.present)[kept][..., None]
    scale = (lambda q: q.log_var) if "scale" not in str([k for k in case.file if k.startswith("post/")]) else spread
    kind = "logvar" if scale is not spread else "scale"
    if "post/uni/mu" in case.file:
        experts = jax.tree.map(lambda x: x[np.array(kept)], inference.experts)
        assert_close(np.where(there, experts.mean, 0), np.where(there, case.file["post/uni/mu"], 0))
        assert_close(np.where(there, scale(experts), 0), np.where(there, case.file[f"post/uni/{kind}"], 0))
    if "post/joint/mu" in case.file:
        joint = inference.joint.components
        assert_close(joint.mean[0], case.file["post/joint/mu"])
        assert_close(joint.log_var[0], case.file["post/joint/logvar"])
    if "post/subset/mu" in case.file:
        joint, used = inference.joint, case.file["aux/weights"][..., None] > 0
        assert_close(joint.weights, case.file["aux/weights"])
        assert_close(np.where(used, joint.components.mean, 0), np.where(used, case.file["post/subset/mu"], 0))
        assert_close(np.where(used, joint.components.log_var, 0), np.where(used, case.file["post/subset/logvar"], 0))
    for i, m in enumerate(inference.private):
        there = np.asarray(data.present[m])[:, None]
        mu, sigma = (f"post/style/{m}/{k}" for k in ("mu", kind))
        each = (case.file[k] if k in case.file else case.file[f"post/style/{k.split('/')[-1]}"][i] for k in (mu, sigma))
        for ours, expected in zip((inference.private[m].mean, scale(inference.private[m])), each, strict=True):
            assert_close(np.where(there, ours, 0), np.where(there, expected, 0))


def spread(q):
    return q.scale if hasattr(q, "scale") else jnp.exp(0.5 * q.log_var)


def test_conditional_means(case):
    if "cond/z" not in case.file:
        pytest.skip("the file has no conditional means")
    model, weights, data = vae(case), params(case, case.unpack("w")), batch(case)
    for i, subset in enumerate(case.meta["cond_subsets"]):
        chosen = subset.split("_")
        if "cond/chosen" in case.file:  # the reference takes one of those given at random
            chosen = [str(case.file["cond/chosen"][i])]
        given = {m: np.full(case.size, m in chosen) for m in case.names}
        part = Batch(data.values, given).masked()
        inference = model.encode(weights, part)
        evidence = model.evidence(part, inference.experts, inference.present)
        mean = model.objective.conditional(weights["objective"], weights["fusion"], evidence).mean
        if case.model_name == "MoPoE" and len(chosen) == len(case.names):
            mean = inference.joint.components.mean.mean(0)  # the reference averages the components there
        assert_close(mean, case.file["cond/z"][i])


def test_density_of_a_product_of_flows(case):
    subsets = [k.split("/")[1] for k in case.file if k.endswith("/log_density")]
    if not subsets:
        pytest.skip("the file has no flows")
    model, weights, data = vae(case), params(case, case.unpack("w")), batch(case)
    for subset in subsets:
        part = Batch(data.values, {m: np.full(case.size, m in subset.split("_")) for m in case.names}).masked()
        inference = model.encode(weights, part)
        evidence = model.evidence(part, inference.experts, inference.present)
        posterior = model.objective.conditional(weights["objective"], weights["fusion"], evidence)
        assert_close(posterior.log_density(case.file["poe/z"]), case.file[f"poe/{subset}/log_density"])


def test_importance_sampled_likelihood(case):
    if "nll/value" not in case.file:
        pytest.skip("the file has no likelihood")
    if case.model_name == "CMVAE":
        return check_cluster_likelihood(case)
    model, weights, data = vae(case), params(case, case.unpack("w")), batch(case)
    private = {m: case.file[f"nll/noise_w_{m}"] for m in model.private}
    drawn = Noise(z=case.file["nll/noise_z"], private=private, choice=np.zeros((1, case.size)))
    lw = model.log_weight(weights, data)(drawn, jnp.zeros(case.size))
    log_mean = jax.nn.logsumexp(lw, axis=0) - np.log(int(case.file["nll/K"]))
    assert_close(-log_mean.sum(), case.file["nll/value"])


def check_cluster_likelihood(case):
    """The reference scores a modified model, whose other private codes come from r_j: the log-weights of training."""
    model = vae(case)
    weights, data = params(case, case.unpack("w")), batch(case)
    axes = {"u": (1, 2, 0, 3), "w": (1, 2, 0, 3), "r": (1, 2, 3, 0, 4)}
    u, w, r = (case.file[f"nll/noise_{k}"].transpose(axes[k]) for k in axes)
    private = {}
    for j, name in enumerate(case.names):
        rows = [w[m] if m == j else r[m, j - (j > m)] for m in range(len(case.names))]
        private[name] = np.stack(rows)
    drawn = Noise(z=u, private=private, choice=np.zeros((1, case.size)))
    plain = VAE(
        modalities=model.modalities, latent=model.latent, private=model.private, dtype="float64",
        objective=CMVAE(clusters=model.objective.clusters, samples=u.shape[1], family=model.objective.family),
    )  # fmt: skip
    inference, networks = plain.encode(weights, data), plain.networks(weights, data, step(case))
    codes = plain.objective.codes(inference, drawn)
    lw, _ = plain.objective.log_weights(weights["objective"], inference, networks, codes, drawn, step(case))
    log_mean = jax.nn.logsumexp(lw, axis=(0, 1)) - np.log(lw.shape[0] * lw.shape[1])
    assert_close(-log_mean.sum(), case.file["nll/value"])

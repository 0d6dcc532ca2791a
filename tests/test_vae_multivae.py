"""With MultiVae's weights our networks say what MultiVae's say; weights that do not fit are told by name."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from multivae_weights import numbers, weights

import mmgen_jax as mm
from mmgen_jax.nn.beside import SideBySide
from mmgen_jax.nn.mlp import DenseDecoder, DenseEncoder
from mmgen_jax.nn.polymnist import ConvDecoder, ConvEncoder, ResNetDecoder, ResNetEncoder
from mmgen_jax.nn.towers import Towers
from mmgen_jax.vae.multivae import check_complete, from_multivae, scales
from mmgen_jax.vae.multivae_layers import Weights

SHAPE = (28, 28, 3)
OLD = ResNetEncoder(activation_first=False)
NETWORKS = {  # by the fixture's name; private codes have 4 dimensions there
    "conv": (ConvEncoder(), ConvDecoder()),
    "conv_hidden": (ConvEncoder(hidden=6), ConvDecoder()),
    "conv_towers": (Towers(ConvEncoder(), private=4), ConvDecoder()),
    "resnet": (OLD, ResNetDecoder(activation_first=False)),
    "resnet_towers": (Towers(OLD, private=4), ResNetDecoder(activation_first=False)),
    "preactivation": (Towers(ResNetEncoder(), private=4), ResNetDecoder()),
    "mlp": (DenseEncoder(), DenseDecoder(SHAPE)),
    "mlp_private": (DenseEncoder((512,)), DenseDecoder(SHAPE)),
    "joint": (DenseEncoder(), DenseDecoder(SHAPE)),
}
OUTPUTS = ("embedding", "style_embedding", "log_covariance", "style_log_covariance")  # the order of an encoder's


def model_of(case: str, names: tuple[str, ...] = ("m0", "m1"), latent: int = 6, private: int = 0) -> mm.VAE:
    encoder, decoder = NETWORKS[case]
    modalities = {name: mm.Image(*SHAPE, encoder=encoder, decoder=decoder) for name in names}
    fields = {"private": dict.fromkeys(names, private)} if private else {}
    if case == "joint":
        network = SideBySide(dict.fromkeys(names, encoder), latent)
        fields["objective"] = mm.vae.JMVAE(fusion=mm.vae.JointEncoder(network=network))
    return mm.VAE(modalities=modalities, latent=latent, **fields)


def small_state(**changes) -> dict[str, np.ndarray]:
    """The weights of a model with one modality, with which `from_multivae` is quick."""
    shapes = {"encoders.m0.layers.0.0": (5, 12), "encoders.m0.embedding": (2, 5), "encoders.m0.log_var": (2, 5)}
    shapes |= {"decoders.m0.layers.0.0": (512, 2), "decoders.m0.layers.1.0": (12, 512)}
    state = {f"{name}.weight": np.ones(shape) for name, shape in shapes.items()}
    state |= {f"{name}.bias": np.ones(shape[0]) for name, shape in shapes.items()}
    return {name: value for name, value in {**state, **changes}.items() if value is not None}


def small_model(**changes) -> mm.VAE:
    networks = {"encoder": DenseEncoder((5,)), "decoder": DenseDecoder((2, 2, 3)), **changes}
    return mm.VAE(modalities={"m0": mm.Image(2, 2, **networks)}, latent=2)


def test_the_converted_networks_say_what_multivae_says(golden_multivae):
    with np.load(golden_multivae) as file:
        expected = {name: file[name] for name in file.files if name != "meta"}
        meta = json.loads(str(file["meta"]))
    model = model_of(golden_multivae.stem, latent=meta["latent"], private=meta["private"])
    params = from_multivae(weights(meta["shapes"]), model)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0))[0])
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(lambda x: (x.shape, x.dtype), like)

    x = abs(numbers("x", meta["batch"], *meta["shape"])).transpose(0, 2, 3, 1)
    z = numbers("z", meta["batch"], meta["latent"] + meta["private"])
    image = model.modalities["m1"]
    outputs = 2 * (meta["latent"] + meta["private"])
    code = jax.jit(image.encoder_network(outputs).apply)({"params": params["encoders"]["m1"]}, jnp.float32(x))
    picture = jax.jit(image.decoder_network().apply)({"params": params["decoders"]["m1"]}, jnp.float32(z))
    said = np.concatenate([expected[name] for name in OUTPUTS if name in expected], axis=1)
    np.testing.assert_allclose(code, said, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(picture, expected["picture"].transpose(0, 2, 3, 1), rtol=1e-5, atol=2e-6)
    if "joint_embedding" in expected:
        batch = mm.Batch(*(dict.fromkeys(model.modalities, both) for both in (jnp.float32(x), jnp.ones(2, bool))))
        joint = jax.jit(model.encode)(params, batch).joint.components
        np.testing.assert_allclose(joint.mean[0], expected["joint_embedding"], rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(joint.log_var[0], expected["joint_log_covariance"], rtol=1e-5, atol=2e-6)


def test_every_network_has_a_fixture(request):
    folder = request.config.getoption("--golden") / "multivae"
    assert {file.stem for file in folder.glob("*.npz")} == set(NETWORKS)


@pytest.mark.parametrize("changes, message", [
    ({"encoders.m0.embedding.weight": None}, "have no 'encoders.m0.embedding.weight', but the model needs"),
    ({"encoders.m0.log_var.bias": np.ones(3)}, "'encoders.m0.log_var.bias' has shape (3,), but the model needs (2,)"),
    ({"decoders.m0.layers.1.0.weight": np.ones((512, 12))}, "'decoders.m0.layers.1.0.weight' has shape (512, 12)"),
    ({"encoders.m1.embedding.bias": np.ones(2)}, "have 'encoders.m1.embedding.bias', but the model has no place"),
    ({"prior_log_var": np.ones((1, 2))}, "have 'prior_log_var', but the model has no place for it"),
])  # fmt: skip
def test_weights_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError) as error:
        from_multivae(small_state(**changes), small_model())
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_prior_of_zeros_needs_no_place():
    params = from_multivae(small_state(prior_mean=np.zeros((1, 2)), prior_log_var=np.zeros((1, 2))), small_model())
    assert set(params["encoders"]["m0"]) == {"encoder", "Dense_0"}


def test_learned_scales_of_priors_are_taken_where_the_objective_has_them():
    like = {"prior": np.zeros(3), "auxiliary": {"m0": np.zeros(2)}}
    state = {"logvars_priors.shared": np.array([[1.0, 2, 3]]), "logvars_priors.m0": np.array([[4.0, 5]])}
    made = scales(Weights(state), like)
    np.testing.assert_array_equal(made["prior"], [1, 2, 3])
    np.testing.assert_array_equal(made["auxiliary"]["m0"], [4, 5])
    np.testing.assert_array_equal(
        scales(Weights({"prior_log_var": np.ones((1, 3))}), {"prior": np.zeros(3)})["prior"], 1
    )


@pytest.mark.parametrize("model, message", [
    (small_model(encoder=None), "encoders.m0 is None, but weights of MultiVae fit none like it"),
    (small_model(decoder=None), "decoders.m0 is None, but weights of MultiVae fit none like it"),
])  # fmt: skip
def test_networks_without_a_counterpart_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        from_multivae(small_state(), model)


def test_towers_must_have_the_private_code_of_the_model():
    encoder = Towers(ConvEncoder(), private=3)
    image = mm.Image(8, 8, encoder=encoder, decoder=ConvDecoder((8, 8, 3)))
    with pytest.raises(ValueError, match="encoders.m0 are Towers with private=3, but the model has 4"):
        from_multivae({}, mm.VAE(modalities={"m0": image}, latent=6, private={"m0": 4}))
    with pytest.raises(ValueError, match="private code of 3 is no part of 6 / 2 outputs"):
        image.encoder_network(6).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def test_a_parameter_that_multivae_does_not_have_is_named():
    with pytest.raises(ValueError, match="the model has fusion/kernel, but weights of MultiVae hold nothing like it"):
        check_complete({"fusion": {}}, {"fusion": {"kernel": np.zeros(2)}})


def test_a_joint_encoder_fits_the_modalities_and_the_code():
    network = SideBySide({"m0": DenseEncoder((5,))}, 2)
    with pytest.raises(ValueError, match=r"encoders are of \['m0'\], but must be of \['m1'\] as well"):
        network.init(jax.random.key(0), {"m0": jnp.zeros((1, 3)), "m1": jnp.zeros((1, 3))}, jnp.ones((2, 1), bool))
    fusion = mm.vae.JointEncoder(network=SideBySide({"m0": DenseEncoder((5,))}, 2))
    with pytest.raises(ValueError, match="network returns 4 values, but a code of 3 needs 6"):
        fusion.init(jax.random.key(0), small_model().modalities, 3)


def test_a_file_of_weights_is_read_as_it_is(tmp_path):
    np.savez(tmp_path / "weights.npz", **small_state())
    with np.load(tmp_path / "weights.npz") as state:
        params = from_multivae(state, small_model())
    jax.tree.map(np.testing.assert_array_equal, params, from_multivae(small_state(), small_model()))

"""What differs between the ComfyUI versions that the stand-in can be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_UPLOAD_BYTES = 104857600


@dataclass(frozen=True)
class Version:
    """One ComfyUI release, as far as a client can tell it from another.

    Everything here is recorded in `tests/fixtures/wire`, except
    `cached_outputs_need_client`, which Comfy-Org/ComfyUI#13751 describes.
    """

    number: str
    os_name: str
    required_frontend_version: str
    required_templates_version: str
    model_folders: tuple[str, ...]
    samplers: tuple[str, ...]
    extra_features: Mapping[str, Any] = field(default_factory=dict)
    stamps_create_time: bool = False
    """`extra_data` of a queued prompt carries `create_time`, in milliseconds since the epoch."""
    cached_outputs_need_client: bool = False
    """A cached node's outputs are missing from the history of a prompt without `client_id`."""

    @property
    def features(self) -> dict[str, Any]:
        """The body of `/features`."""
        return {
            "supports_preview_metadata": True,
            "max_upload_size": MAX_UPLOAD_BYTES,
            **self.extra_features,
        }


_SAMPLERS = (
    *("euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "heun", "heunpp2"),
    *("dpm_2", "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral"),
    *("dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_cfg_pp"),
    *("dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu"),
    *("dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm", "ipndm", "ipndm_v", "deis"),
    *("res_multistep", "res_multistep_cfg_pp", "res_multistep_ancestral"),
    *("res_multistep_ancestral_cfg_pp", "gradient_estimation", "gradient_estimation_cfg_pp"),
    *("er_sde", "seeds_2", "seeds_3", "sa_solver", "sa_solver_pece", "ddim", "uni_pc"),
    "uni_pc_bh2",
)
_MODEL_FOLDERS = (
    *("checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models"),
    *("clip_vision", "style_models", "embeddings", "diffusers", "vae_approx", "controlnet"),
    *("gligen", "upscale_models", "custom_nodes", "hypernetworks", "photomaker"),
    *("classifiers", "model_patches", "audio_encoders"),
)


def _after(values: tuple[str, ...], anchor: str, *added: str) -> tuple[str, ...]:
    position = values.index(anchor) + 1
    return (*values[:position], *added, *values[position:])


VERSIONS: Mapping[str, Version] = {
    version.number: version
    for version in (
        Version(
            number="0.3.64",
            os_name="posix",
            required_frontend_version="1.27.10",
            required_templates_version="0.1.95",
            model_folders=_MODEL_FOLDERS,
            samplers=_SAMPLERS,
        ),
        Version(
            number="0.8.0",
            os_name="linux",
            required_frontend_version="1.35.9",
            required_templates_version="0.7.67",
            model_folders=_after(_MODEL_FOLDERS, "upscale_models", "latent_upscale_models"),
            samplers=_after(_SAMPLERS, "heunpp2", "exp_heun_2_x0", "exp_heun_2_x0_sde"),
            extra_features={"extension": {"manager": {"supports_v4": True}}},
            stamps_create_time=True,
            cached_outputs_need_client=True,
        ),
    )
}
DEFAULT_VERSION = "0.8.0"

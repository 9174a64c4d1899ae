"""The distiller: which features are compared, through what, by which losses."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Optional, Union

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModule
from torch import nn

from rtm_kd.registry import MODELS, SCOPE
from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.preserving import preserved_randomness

from .config_checks import check_names, recorder_sources
from .connector_channels import ConnectorCfg, build_connector, with_channels
from .feature_comparison import FeatureComparison, Tap, fastest
from .recorder import Records

_SCALES = ('batch_size', 'world_size')


@MODELS.register_module()
class ConfigurableDistiller(BaseModule):
    """Which features are compared, through which connectors, by which losses.

    Takes the arguments of MMRazor's distiller of this name. Types without a scope are
    looked up in ``rtm_kd``; ``mmrazor.PKDLoss`` and the like work as well.

    Args:
        student_recorders, teacher_recorders (dict): Recorder name -> ``dict(type='ModuleOutputs',
            source='neck.out_layers.0.conv')``.
        connectors (dict, optional): Connector name -> its config, or a list of configs that run one
            after the other. Channels that a config leaves out (``in_channel``, ``out_channels`` and
            the like) follow from the models, see :meth:`fit_connectors`.
        distill_losses (dict): Loss name -> its config. A name with "loss" in it is added to the
            total, any other is only logged.
        loss_forward_mappings (dict): Loss name -> argument of its forward ->
            ``dict(from_student=bool, recorder=str, connector=str)``, and where needed
            ``record_idx`` (which call of the module, default 0), ``data_idx`` (which of its
            outputs) and ``connector_idx`` (which output of the connector).
        scale_by (tuple[str]): What the student's head multiplies its own losses by, so that
            those of distillation keep their share: ``'batch_size'``, the images of a process's
            step, and ``'world_size'``, the number of processes. Defaults to (), nothing.
        reference (bool): Run connectors and losses module by module, as MMRazor does, instead of
            PKD's norms and the divergence as one function. Defaults to False.
        distill_deliveries (dict, optional): Not supported.
        init_cfg (dict, optional): Initialisation of the connectors.

    Raises:
        ValueError: If a name refers to nothing, no mapping names a loss or connector, or a type
            of recorder is not supported.
    """

    def __init__(
        self,
        student_recorders: dict[str, dict],
        teacher_recorders: dict[str, dict],
        distill_losses: dict[str, dict],
        loss_forward_mappings: dict[str, dict[str, dict]],
        connectors: Optional[dict[str, ConnectorCfg]] = None,
        scale_by: Sequence[str] = (),
        reference: bool = False,
        distill_deliveries: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(init_cfg)
        if distill_deliveries:
            raise UsageError(
                f'distill_deliveries {list(distill_deliveries)} are not supported here; '
                'use mmrazor.ConfigurableDistiller with mmrazor.SingleTeacherDistill'
            )
        if not isinstance(scale_by, (list, tuple)) or any(name not in _SCALES for name in scale_by):
            raise UsageError(f'scale_by must be a tuple of some of {_SCALES}, got {scale_by!r}')
        self.scale_by = tuple(scale_by)
        self.reference = reference
        self.student_sources = recorder_sources(student_recorders, 'student_recorders')
        self.teacher_sources = recorder_sources(teacher_recorders, 'teacher_recorders')
        #: Connector name -> its config, with all channels once :meth:`fit_connectors` has run.
        self.connector_cfgs = dict(connectors or {})
        # In the order of the config, which is that of the checkpoint; None until it is fitted.
        self.connectors = nn.ModuleDict(
            {name: build_connector(cfg) for name, cfg in self.connector_cfgs.items()}
        )
        self.distill_losses = nn.ModuleDict(
            {name: MODELS.build({'_scope_': SCOPE, **cfg}) for name, cfg in distill_losses.items()}
        )
        self.loss_forward_mappings = loss_forward_mappings
        check_names(self)
        #: Loss name -> what computes it; empty until every connector is there.
        self.comparisons: dict[str, FeatureComparison] = {}
        if None not in self.connectors.values():
            self._make_comparisons()

    def init_weights(self) -> None:
        """Initialise the connectors, and leave the run's random numbers as they are."""
        with preserved_randomness():
            super().init_weights()

    def compute_distill_losses(
        self, student_records: Records, teacher_records: Records, batch_size: int = 1
    ) -> dict[str, torch.Tensor]:
        """Compare the recorded features.

        Args:
            student_records, teacher_records (Records): Features, usually (N, C, H, W).
            batch_size (int): Images that they were recorded of, for ``scale_by``.

        Returns:
            dict[str, Tensor]: Loss name -> loss.
        """
        scales = {'batch_size': batch_size, 'world_size': get_world_size()}
        scale = math.prod(scales[name] for name in self.scale_by)
        return {
            name: comparison(student_records, teacher_records) * scale
            for name, comparison in self.comparisons.items()
        }

    def check_gradients(self, student_records: Records) -> None:
        """Raise if the student can't learn from a loss, though its connector would.

        Features of a module that MMEngine checkpoints (``activation_checkpointing``) are recorded
        without gradients, and so are those of frozen modules.

        Raises:
            ValueError: Naming the module and the loss.
        """
        for loss_name, mapping in self.loss_forward_mappings.items():
            students = [location for location in mapping.values() if location['from_student']]
            outputs = [student_records[location['recorder']] for location in students]
            if 'loss' in loss_name and students and not _has_gradient(outputs):
                raise UsageError(
                    f'{self.source_of(students[0])}, which "{loss_name}" compares, gives no '
                    'gradients, so the student would learn nothing from it; record a module that '
                    'is not frozen and not in activation_checkpointing'
                )

    def describe(self) -> list[str]:
        """Return a line for each loss: what is compared, through what, and whether fused."""
        lines = []
        for name, comparison in self.comparisons.items():
            ends = [
                self.source_of(location)
                + (f' through {location["connector"]}' if location.get('connector') else '')
                for location in self.loss_forward_mappings[name].values()
            ]
            how = 'norms and divergence in one' if comparison.fused else 'module by module'
            loss = type(self.distill_losses[name]).__name__
            lines.append(f'{name}: {" with ".join(ends)}, {loss}, {how}')
        return lines

    def _make_comparisons(self) -> None:
        for name, mapping in self.loss_forward_mappings.items():
            taps = {argument: self._tap(location) for argument, location in mapping.items()}
            comparison = FeatureComparison(taps, self.distill_losses[name])
            self.comparisons[name] = comparison if self.reference else fastest(comparison)
        # A loss that is only logged gives no gradient, and DDP waits for one of every weight.
        trained = self.connectors_of(name for name in self.loss_forward_mappings if 'loss' in name)
        for name, connector in self.connectors.items():
            if name not in trained:
                connector.requires_grad_(False)

    def _tap(self, location: dict) -> Tap:
        name = location.get('connector')
        return Tap(**{**location, 'connector': None if name is None else self.connectors[name]})

    @torch.no_grad()
    def fit_connectors(self, student_records: Records, teacher_records: Records) -> None:
        """Build the connectors whose channels were left out; raise unless everything fits.

        Channels that come in are those of the recorded features. Those that go out are the
        ones that the loss compares with, the teacher's behind their own connector.

        Raises:
            ValueError: Naming the connector or loss, what it got and what it expects.
        """
        # Losses that involve the teacher, and connectors whose channels are known, come first: they
        # determine the rest.
        for loss_name, mapping in sorted(
            self.loss_forward_mappings.items(),
            key=lambda item: all(location['from_student'] for location in item[1].values()),
        ):
            arguments = {}
            for argument, location in sorted(
                mapping.items(),
                key=lambda item: (self._is_unfitted(item[1]), item[1]['from_student']),
            ):
                raw = self._tap(location).recorded(student_records, teacher_records)
                if location.get('connector') is not None:
                    target = next(filter(torch.is_tensor, arguments.values()), raw)
                    self._fit_connector(location, raw, target)
                arguments[argument] = self._tap(location)(
                    student_records, teacher_records, in_float32=not self.reference
                )
            try:
                self.distill_losses[loss_name](**arguments)
            except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
                shapes = {name: _shape(value) for name, value in arguments.items()}
                raise UsageError(
                    self._differing_sizes(mapping, arguments)
                    or f'the loss "{loss_name}" can\'t compare features of shape {shapes}: {error}'
                ) from error
        self._make_comparisons()

    def _is_unfitted(self, location: dict) -> bool:
        name = location.get('connector')
        return name is not None and self.connectors[name] is None

    def _fit_connector(self, location: dict, feature: torch.Tensor, target: torch.Tensor) -> None:
        name, source = location['connector'], self.source_of(location)
        if isinstance(feature, (list, tuple)):
            raise UsageError(
                f'{source} gives {len(feature)} outputs; say which one with data_idx=0 to '
                f'{len(feature) - 1} in loss_forward_mappings'
            )
        if not torch.is_tensor(feature) or feature.dim() < 2:
            raise UsageError(f'{source} gives {_shape(feature)}, which is not a feature map')
        if self._is_unfitted(location):
            cfg = with_channels(self.connector_cfgs[name], feature.shape[1], target.shape[1])
            self.connector_cfgs[name] = cfg
            self.connectors[name] = build_connector(cfg).eval()
        got = f'{source} gives {feature.shape[1]} channels'
        first = self.connectors[name]
        first = first[0] if isinstance(first, nn.Sequential) else first
        expected = getattr(first, 'in_channels', feature.shape[1])
        if expected != feature.shape[1]:
            raise UsageError(f'connector "{name}" expects {expected} channels, but {got}')
        try:
            self.connectors[name](feature)
        except RuntimeError as error:
            raise UsageError(f'connector "{name}" does not fit: {got}; {error}') from error

    def _differing_sizes(
        self, mapping: dict[str, dict], arguments: dict[str, Any]
    ) -> Optional[str]:
        """Say in a sentence that feature maps differ in height and width, None if they do not."""
        maps = [
            (self.source_of(mapping[argument]), 'x'.join(map(str, feature.shape[2:])))
            for argument, feature in arguments.items()
            if torch.is_tensor(feature)
        ]
        for (one, size), (other, other_size) in itertools.combinations(maps, 2):
            if size != other_size:
                return (
                    f'on one image {one} gives a map of {size} and {other} one of {other_size}, '
                    'and they are compared position by position; record levels of one stride'
                )
        return None

    def source_of(self, location: dict) -> str:
        """Return the module of a mapping's entry, such as ``'"neck" of the student'``."""
        side = 'student' if location['from_student'] else 'teacher'
        sources = self.student_sources if location['from_student'] else self.teacher_sources
        return f'"{sources[location["recorder"]]}" of the {side}'

    def connectors_of(self, losses: Iterable[str]) -> set[str]:
        """Return the names of the connectors that the arguments of these losses go through."""
        return {
            location['connector']
            for loss_name in losses
            for location in self.loss_forward_mappings[loss_name].values()
            if location.get('connector') is not None
        }


def _has_gradient(output: Any) -> bool:
    if isinstance(output, (list, tuple)):
        return any(map(_has_gradient, output))
    return torch.is_tensor(output) and output.requires_grad


def _shape(output: Any) -> Union[tuple, str]:
    return tuple(output.shape) if torch.is_tensor(output) else type(output).__name__

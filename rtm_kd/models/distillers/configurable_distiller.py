import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Optional, Union

import torch
from mmengine.model import BaseModule
from torch import nn

from rtm_kd.registry import MODELS, SCOPE
from rtm_kd.utils.errors import UsageError, near_misses

from ..losses import ChannelWiseDivergence
from .recorder import Records


@MODELS.register_module()
class ConfigurableDistiller(BaseModule):
    """Which features are compared, through which connectors, by which losses.

    Takes the arguments of MMRazor's distiller of this name. Types without a scope are
    looked up in ``rtm_kd``; ``mmrazor.PKDLoss`` and the like work as well.

    Args:
        student_recorders (dict): Recorder name -> ``dict(type='ModuleOutputs',
            source='neck.out_layers.0.conv')``.
        teacher_recorders (dict): The same for the teacher.
        connectors (dict, optional): Connector name -> its config, or a list of configs
            that run one after the other.
        distill_losses (dict): Loss name -> its config. A name with "loss" in it is added
            to the total, any other is only logged.
        loss_forward_mappings (dict): Loss name -> argument of its forward ->
            ``dict(from_student=bool, recorder=str, connector=str)``, and where needed
            ``record_idx`` (which call of the module, default 0), ``data_idx`` (which of
            its outputs) and ``connector_idx`` (which output of the connector).
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
        connectors: Optional[dict[str, Union[dict, list[dict]]]] = None,
        distill_deliveries: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(init_cfg)
        if distill_deliveries:
            raise UsageError(
                f'distill_deliveries {list(distill_deliveries)} are not supported here; '
                'use mmrazor.ConfigurableDistiller with mmrazor.SingleTeacherDistill'
            )
        # Whether connectors and losses run module by module, as MMRazor's do, instead of
        # PKD's norms and the divergence as one function. The algorithm says.
        self.reference = False
        self.student_sources = _sources(student_recorders, 'student_recorders')
        self.teacher_sources = _sources(teacher_recorders, 'teacher_recorders')
        self.connectors = nn.ModuleDict(
            {name: _build_connector(cfg) for name, cfg in (connectors or {}).items()}
        )
        self.distill_losses = nn.ModuleDict(
            {name: _build(cfg) for name, cfg in distill_losses.items()}
        )
        self.loss_forward_mappings = loss_forward_mappings
        self._check_names()
        self._freeze_what_is_not_trained()

    def compute_distill_losses(
        self, student_records: Records, teacher_records: Records
    ) -> dict[str, torch.Tensor]:
        """Compare the recorded features.

        Args:
            student_records (dict[str, list[Tensor]]): Recorder name -> its features, each
                usually (N, C, H, W).
            teacher_records (dict[str, list[Tensor]]): The same for the teacher.

        Returns:
            dict[str, Tensor]: Loss name -> loss.
        """
        losses = {}
        for loss_name, mapping in self.loss_forward_mappings.items():
            loss = self.distill_losses[loss_name]
            fused = None if self.reference else self._fused(loss, mapping)
            if fused is not None:
                mapping, loss = fused
            elif not self.reference:
                # Other connectors expect the teacher in the student's precision.
                teacher_records = {
                    name: [_as_float32(output) for output in outputs]
                    for name, outputs in teacher_records.items()
                }
            arguments = {
                argument: self._feature(student_records, teacher_records, **location)
                for argument, location in mapping.items()
            }
            if fused is None and not self.reference:
                # Mixed precision leaves it to the loss: on a CPU even a softmax stays halved.
                arguments = {name: _as_float32(value) for name, value in arguments.items()}
            losses[loss_name] = loss(**arguments)
        return losses

    def _fused(
        self, loss: nn.Module, mapping: dict[str, dict]
    ) -> Optional[tuple[dict[str, dict], Callable[..., torch.Tensor]]]:
        """Let PKD's norms and the divergence after them run as one function, if it is those.

        Returns:
            The mapping to what comes before the norms, and the function; None for any other
            loss or connector.
        """
        if type(loss) is not ChannelWiseDivergence or set(mapping) != {'preds_S', 'preds_T'}:
            return None
        before, eps = {}, {}
        for argument, location in mapping.items():
            name = location.get('connector')
            connector = None if name is None else self.connectors[name]
            split = connector.split_norm() if hasattr(connector, 'split_norm') else None
            if split is None or not _is_pkd_norm(split[1]) or 'connector_idx' in location:
                return None
            before[argument] = {**location, 'connector': split[0]}
            eps[argument[-1]] = split[1].eps
        return before, functools.partial(loss.fused_with_norm, eps_S=eps['S'], eps_T=eps['T'])

    def _feature(
        self,
        student_records: Records,
        teacher_records: Records,
        recorder: str,
        from_student: bool,
        record_idx: int = 0,
        data_idx: Optional[int] = None,
        connector: Union[str, nn.Module, None] = None,
        connector_idx: Optional[int] = None,
    ) -> Any:
        records = student_records if from_student else teacher_records
        feature = records[recorder][record_idx]
        if data_idx is not None:
            feature = feature[data_idx]
        if isinstance(connector, str):
            connector = self.connectors[connector]
        if connector is not None:
            feature = connector(feature)
        return feature if connector_idx is None else feature[connector_idx]

    @torch.no_grad()
    def check_features(self, student_records: Records, teacher_records: Records) -> None:
        """Raise unless connectors and losses accept these features.

        Raises:
            ValueError: Naming the connector or loss, what it got and what it expects.
        """
        for loss_name, mapping in self.loss_forward_mappings.items():
            arguments = {}
            for argument, location in mapping.items():
                _check_record(student_records, teacher_records, location)
                raw = self._feature(
                    student_records,
                    teacher_records,
                    **{k: v for k, v in location.items() if not k.startswith('connector')},
                )
                self._check_connector(location, raw)
                arguments[argument] = self._feature(student_records, teacher_records, **location)
            try:
                self.distill_losses[loss_name](**arguments)
            except (RuntimeError, ValueError, AssertionError) as error:
                shapes = {name: tuple(value.shape) for name, value in arguments.items()}
                raise UsageError(
                    f'the loss "{loss_name}" can\'t compare features of shape {shapes}: {error}'
                ) from error

    def _check_connector(self, location: dict, feature: torch.Tensor) -> None:
        name = location.get('connector')
        if name is None:
            return
        side = 'student' if location['from_student'] else 'teacher'
        source = getattr(self, f'{side}_sources')[location['recorder']]
        got = f'"{source}" of the {side} gives {feature.shape[1]} channels'
        first = self.connectors[name]
        first = first[0] if isinstance(first, nn.Sequential) else first
        expected = getattr(first, 'in_channels', feature.shape[1])
        if expected != feature.shape[1]:
            raise UsageError(f'connector "{name}" expects {expected} channels, but {got}')
        try:
            self.connectors[name](feature)
        except RuntimeError as error:
            raise UsageError(f'connector "{name}" does not fit: {got}; {error}') from error

    def _check_names(self) -> None:
        for loss_name, mapping in self.loss_forward_mappings.items():
            where = f'loss_forward_mappings["{loss_name}"]'
            _check_known(where, 'distill_losses', loss_name, self.distill_losses)
            accepted = inspect.signature(self.distill_losses[loss_name].forward).parameters
            for argument, location in mapping.items():
                _check_known(f'{where}["{argument}"]', 'arguments of the loss', argument, accepted)
                if not isinstance(location.get('from_student'), bool):
                    raise UsageError(
                        f'{where}["{argument}"] needs from_student=True or False, '
                        f'got {location.get("from_student")!r}'
                    )
                side = 'student' if location['from_student'] else 'teacher'
                _check_known(
                    f'{where}["{argument}"]',
                    f'{side}_recorders',
                    location.get('recorder'),
                    getattr(self, f'{side}_sources'),
                )
                if location.get('connector') is not None:
                    _check_known(
                        f'{where}["{argument}"]',
                        'connectors',
                        location['connector'],
                        self.connectors,
                    )
            missing = [
                name
                for name, parameter in accepted.items()
                if parameter.default is parameter.empty
                and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
                and name not in mapping
            ]
            if missing:
                raise UsageError(f'{where} gives no value for {missing} of the loss')
        unused = [name for name in self.distill_losses if name not in self.loss_forward_mappings]
        if unused:
            raise UsageError(
                f'distill_losses {unused} have no entry in loss_forward_mappings, '
                'so they would never be computed; add one or remove the loss'
            )
        used = self._connectors_of(self.loss_forward_mappings)
        unused = [name for name in self.connectors if name not in used]
        if unused:
            raise UsageError(
                f'connectors {unused} are in no loss_forward_mappings, so no loss would train '
                'them; name each in one or remove it'
            )

    def _connectors_of(self, losses: Iterable[str]) -> set[str]:
        return {
            location['connector']
            for loss_name in losses
            for location in self.loss_forward_mappings[loss_name].values()
            if location.get('connector') is not None
        }

    def _freeze_what_is_not_trained(self) -> None:
        # A loss that is only logged gives no gradient, and DDP waits for one of every weight.
        trained = self._connectors_of(name for name in self.loss_forward_mappings if 'loss' in name)
        for name, connector in self.connectors.items():
            if name not in trained:
                connector.requires_grad_(False)


def _check_known(where: str, what: str, name: str, known) -> None:
    if name not in known:
        raise UsageError(
            f'{where}: "{name}" is not one of the {what} {list(known)}'
            + near_misses(str(name), known)
        )


def _check_record(student_records: Records, teacher_records: Records, location: dict) -> None:
    recorder, record_idx = location['recorder'], location.get('record_idx', 0)
    outputs = (student_records if location['from_student'] else teacher_records)[recorder]
    if not -len(outputs) <= record_idx < len(outputs):
        raise UsageError(
            f'recorder "{recorder}" has {len(outputs)} record of each image batch, one for each '
            f'call of its module, so there is no record_idx={record_idx}'
        )


def _sources(recorders: dict[str, dict], argument: str) -> dict[str, str]:
    for name, recorder in recorders.items():
        if recorder.get('type') != 'ModuleOutputs' or not isinstance(recorder.get('source'), str):
            raise UsageError(
                f'{argument}["{name}"] must be dict(type="ModuleOutputs", source="a.module"), '
                f'got {dict(recorder)}'
            )
    return {name: recorder['source'] for name, recorder in recorders.items()}


def _as_float32(output: Any) -> Any:
    if isinstance(output, (list, tuple)):
        return type(output)(_as_float32(part) for part in output)
    return output.float() if torch.is_tensor(output) and output.is_floating_point() else output


def _is_pkd_norm(norm: nn.Module) -> bool:
    """Whether it is a BN of the batch's own statistics and nothing more."""
    return type(norm) is nn.BatchNorm2d and not norm.affine and not norm.track_running_stats


def _build(cfg: dict) -> nn.Module:
    return MODELS.build({'_scope_': SCOPE, **cfg})


def _build_connector(cfg: Union[dict, list[dict]]) -> nn.Module:
    if isinstance(cfg, (list, tuple)):
        return nn.Sequential(*(_build(part) for part in cfg))
    return _build(cfg)
